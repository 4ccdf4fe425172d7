//! The members of a large sorted set in order: a B+tree of slot numbers with counts.
//!
//! Scores and members stay in their slots; the tree compares through them. A branch repeats the score of its first
//! member, so that a descent looks at slots only near ties and in the last leaf.
//!
//! Invariants
//! - Slot numbers ascend by (score, member); no leaf or inner node but an empty root is empty.
//! - A branch's `count` is the number of members below it; `first` and `first_score` are those of the first of them.

use super::members::{Members, SlotId};
use std::cmp::Ordering;

const LEAF_IDS_MAX: usize = 128;
const BRANCHES_MAX: usize = 64;
/// Leaves grow in steps of this many numbers, one cache line.
const LEAF_GROWTH: usize = 16;

/// A position in the order, 0 being the lowest.
pub type Rank = usize;

#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<SlotId>),
    Inner(Vec<Branch>),
}

#[derive(Debug, Clone)]
struct Branch {
    first_score: f64,
    first: SlotId,
    count: u32,
    child: Box<Node>,
}

/// Slot numbers in order; see the module documentation.
#[derive(Debug, Clone)]
pub struct Order {
    root: Node,
    len: usize,
    /// Leaves and inner nodes, to tell the memory without a walk.
    node_bytes: usize,
}

/// Where something stands: its score and member.
#[derive(Clone, Copy)]
struct Place<'a> {
    score: f64,
    member: &'a [u8],
}

impl Place<'_> {
    /// Whether the member in slot `id`, whose score is given, stands before this place.
    #[inline]
    fn is_after(&self, members: &Members, score: f64, id: SlotId) -> bool {
        match score.partial_cmp(&self.score).expect("scores are numbers") {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => members.member(id) < self.member,
        }
    }
}

impl Default for Order {
    fn default() -> Self {
        Order {
            root: Node::Leaf(Vec::new()),
            len: 0,
            node_bytes: 0,
        }
    }
}

impl Order {
    pub fn heap_bytes(&self) -> usize {
        // Leaves are filled to half a growth step below their capacity on average.
        self.len * size_of::<SlotId>() + self.node_bytes
    }

    /// Puts a slot in its place.
    pub fn insert(&mut self, members: &Members, id: SlotId) {
        let place = Place {
            score: members.score(id),
            member: members.member(id),
        };
        if let Some(right) = insert(&mut self.root, members, place, id, &mut self.node_bytes) {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::new()));
            let left = Branch::new(members, Box::new(left), self.len as u32 + 1 - right.count);
            self.root = Node::Inner(vec![left, right]);
            self.node_bytes += NODE_BYTES;
        }
        self.len += 1;
    }

    /// Takes a slot out of the order; its score and member are still those it was put in with.
    pub fn remove(&mut self, members: &Members, id: SlotId) {
        let place = Place {
            score: members.score(id),
            member: members.member(id),
        };
        let removed = remove(&mut self.root, members, place, &mut self.node_bytes);
        assert_eq!(removed, id, "the order holds another slot in this place");
        self.len -= 1;
        while let Node::Inner(branches) = &mut self.root
            && branches.len() == 1
        {
            self.root = *branches.pop().expect("one branch").child;
            self.node_bytes -= NODE_BYTES;
        }
    }

    /// Calls slot `old` by its new number. Its score and member are still found under the old one.
    pub fn rename(&mut self, members: &Members, old: SlotId, new: SlotId) {
        let place = Place {
            score: members.score(old),
            member: members.member(old),
        };
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Leaf(ids) => {
                    let at =
                        ids.partition_point(|&id| place.is_after(members, members.score(id), id));
                    assert_eq!(ids[at], old, "the order holds another slot in this place");
                    ids[at] = new;
                    return;
                }
                Node::Inner(branches) => {
                    let at = branch_of(branches, |branch| {
                        place.is_after(members, branch.first_score, branch.first)
                    });
                    // The place itself may be a branch's first.
                    let at = match branches.get(at + 1) {
                        Some(next) if next.first == old => at + 1,
                        _ => at,
                    };
                    let branch = &mut branches[at];
                    if branch.first == old {
                        branch.first = new;
                    }
                    node = &mut branch.child;
                }
            }
        }
    }

    /// The slot at a rank.
    pub fn get(&self, rank: Rank) -> Option<SlotId> {
        let (ids, at) = self.leaf(rank)?;
        Some(ids[at])
    }

    /// The leaf with a rank, and where the rank is in it.
    pub fn leaf(&self, rank: Rank) -> Option<(&[SlotId], usize)> {
        let (mut node, mut rank) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(ids) => return (rank < ids.len()).then_some((ids, rank)),
                Node::Inner(branches) => {
                    let branch = branches.iter().find(|branch| {
                        let is_here = rank < branch.count as usize;
                        if !is_here {
                            rank -= branch.count as usize;
                        }
                        is_here
                    })?;
                    node = &branch.child;
                }
            }
        }
    }

    /// The rank of a slot.
    pub fn rank(&self, members: &Members, id: SlotId) -> Rank {
        let place = Place {
            score: members.score(id),
            member: members.member(id),
        };
        self.partition_point(members, |score, id| place.is_after(members, score, id))
    }

    /// How many members `is_below` accepts, which must be the lowest ones. It gets a score and its slot.
    pub fn partition_point(
        &self,
        members: &Members,
        is_below: impl Fn(f64, SlotId) -> bool,
    ) -> Rank {
        self.seek(members, is_below).rank
    }

    /// Where the members that `is_below` accepts end, which must be the lowest ones.
    pub fn seek(&self, members: &Members, is_below: impl Fn(f64, SlotId) -> bool) -> Seat<'_> {
        let (mut node, mut rank, mut next_leaf) = (&self.root, 0, None);
        loop {
            match node {
                Node::Leaf(ids) => {
                    let at = ids.partition_point(|&id| is_below(members.score(id), id));
                    let (before, behind) = ids.split_at(at);
                    let score = |&id| members.score(id);
                    return Seat {
                        rank: rank + at,
                        behind,
                        score_before: before.last().map(score),
                        score_behind: behind.first().map(score).or(next_leaf),
                    };
                }
                Node::Inner(branches) => {
                    let at = branch_of(branches, |branch| {
                        is_below(branch.first_score, branch.first)
                    });
                    rank += branches[..at]
                        .iter()
                        .map(|branch| branch.count as usize)
                        .sum::<usize>();
                    let next = branches.get(at + 1).map(|branch| branch.first_score);
                    next_leaf = next.or(next_leaf);
                    node = &branches[at].child;
                }
            }
        }
    }
}

/// A place between two members.
pub struct Seat<'a> {
    /// How many members are before it.
    pub rank: Rank,
    /// Those behind it that are in the same leaf.
    pub behind: &'a [SlotId],
    /// The score of the last member before it.
    pub score_before: Option<f64>,
    /// The score of the first one behind it.
    pub score_behind: Option<f64>,
}

/// What a branch and its node take beside slot numbers: the branch itself, the node, and half a growth step.
const NODE_BYTES: usize =
    size_of::<Branch>() + size_of::<Node>() + LEAF_GROWTH / 2 * size_of::<SlotId>();

impl Branch {
    fn new(members: &Members, child: Box<Node>, count: u32) -> Branch {
        let first = child.first();
        Branch {
            first_score: members.score(first),
            first,
            count,
            child,
        }
    }

    fn refresh_first(&mut self, members: &Members) {
        let first = self.child.first();
        self.first = first;
        self.first_score = members.score(first);
    }
}

impl Node {
    /// The first slot below a node that is not empty.
    fn first(&self) -> SlotId {
        match self {
            Node::Leaf(ids) => ids[0],
            Node::Inner(branches) => branches[0].first,
        }
    }

    /// How full the node is, in eighths.
    fn fill(&self) -> usize {
        match self {
            Node::Leaf(ids) => ids.len() * 8 / LEAF_IDS_MAX,
            Node::Inner(branches) => branches.len() * 8 / BRANCHES_MAX,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(ids) => ids.is_empty(),
            Node::Inner(branches) => branches.is_empty(),
        }
    }
}

/// The last branch whose first member is below the place, or the first branch.
fn branch_of(branches: &[Branch], is_below: impl Fn(&Branch) -> bool) -> usize {
    branches.partition_point(is_below).saturating_sub(1)
}

/// Where to cut a node that is too full by one: members added in order leave full nodes behind.
fn cut(len: usize, at: usize) -> usize {
    if at + 1 == len { len - 1 } else { len / 2 }
}

/// Inserts below `node`; a node that grew too full gives its upper part away.
fn insert(
    node: &mut Node,
    members: &Members,
    place: Place,
    id: SlotId,
    node_bytes: &mut usize,
) -> Option<Branch> {
    match node {
        Node::Leaf(ids) => {
            let at =
                ids.partition_point(|&other| place.is_after(members, members.score(other), other));
            if ids.len() == ids.capacity() {
                ids.reserve_exact(LEAF_GROWTH);
            }
            ids.insert(at, id);
            if ids.len() <= LEAF_IDS_MAX {
                return None;
            }
            let right = ids.split_off(cut(ids.len(), at));
            ids.shrink_to_fit();
            let count = right.len() as u32;
            *node_bytes += NODE_BYTES;
            Some(Branch::new(members, Box::new(Node::Leaf(right)), count))
        }
        Node::Inner(branches) => {
            let mut at = branch_of(branches, |branch| {
                place.is_after(members, branch.first_score, branch.first)
            });
            let branch = &mut branches[at];
            let right = insert(&mut branch.child, members, place, id, node_bytes);
            branch.count += 1;
            branch.refresh_first(members);
            let right = right?;
            branch.count -= right.count;
            at += 1;
            branches.insert(at, right);
            if branches.len() <= BRANCHES_MAX {
                return None;
            }
            let right = branches.split_off(cut(branches.len(), at));
            branches.shrink_to_fit();
            let count = right.iter().map(|branch| branch.count).sum();
            *node_bytes += NODE_BYTES;
            Some(Branch::new(members, Box::new(Node::Inner(right)), count))
        }
    }
}

/// Removes the slot at a place below `node` and returns it.
fn remove(node: &mut Node, members: &Members, place: Place, node_bytes: &mut usize) -> SlotId {
    match node {
        Node::Leaf(ids) => {
            let at = ids.partition_point(|&id| place.is_after(members, members.score(id), id));
            let id = ids.remove(at);
            if ids.capacity() - ids.len() > 2 * LEAF_GROWTH {
                ids.shrink_to(ids.len() + LEAF_GROWTH);
            }
            id
        }
        Node::Inner(branches) => {
            let mut at = branch_of(branches, |branch| {
                place.is_after(members, branch.first_score, branch.first)
            });
            if let Some(next) = branches.get(at + 1)
                && next.first_score == place.score
                && members.member(next.first) == place.member
            {
                at += 1;
            }
            let branch = &mut branches[at];
            let id = remove(&mut branch.child, members, place, node_bytes);
            branch.count -= 1;
            if branch.child.is_empty() {
                branches.remove(at);
                *node_bytes -= NODE_BYTES;
            } else {
                branch.refresh_first(members);
                if branch.child.fill() < 2 {
                    join(branches, at, node_bytes);
                }
            }
            id
        }
    }
}

/// Joins the thin child at `at` with a neighbour, if the two leave room to grow.
fn join(branches: &mut Vec<Branch>, at: usize, node_bytes: &mut usize) {
    let fits = |left: usize| {
        branches
            .get(left + 1)
            .is_some_and(|right| branches[left].child.fill() + right.child.fill() < 6)
    };
    let left = if at > 0 && fits(at - 1) {
        at - 1
    } else if fits(at) {
        at
    } else {
        return;
    };
    let right = branches.remove(left + 1);
    *node_bytes -= NODE_BYTES;
    branches[left].count += right.count;
    match (&mut *branches[left].child, *right.child) {
        (Node::Leaf(ids), Node::Leaf(more)) => ids.extend_from_slice(&more),
        (Node::Inner(inner), Node::Inner(more)) => inner.extend(more),
        _ => unreachable!("neighbours have the same height"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(node: &Node, members: &Members) -> usize {
        match node {
            Node::Leaf(ids) => ids.len(),
            Node::Inner(branches) => branches
                .iter()
                .map(|branch| {
                    assert!(!branch.child.is_empty());
                    assert_eq!(
                        (branch.first, branch.first_score),
                        (branch.child.first(), members.score(branch.first))
                    );
                    assert_eq!(check(&branch.child, members), branch.count as usize);
                    branch.count as usize
                })
                .sum(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn order_agrees_with_a_tree_of_pairs(seed in any::<u64>(), scores in 1u32..400, rising in any::<bool>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut members, mut order) = (Members::default(), Order::default());
            let mut model: BTreeSet<(u32, Vec<u8>)> = BTreeSet::new();
            for step in 0..9000u32 {
                // Grow to some thousands, then shrink to almost nothing.
                let add = random.u32(..9000) > step;
                if add {
                    let score = if rising { step } else { random.u32(..scores) };
                    let member = random.u32(..1_000_000).to_string().into_bytes();
                    if members.find(&member).is_none() {
                        let id = members.push(&member, f64::from(score));
                        order.insert(&members, id);
                        model.insert((score, member));
                    }
                } else if members.len() > 0 {
                    let id = random.usize(..members.len()) as SlotId;
                    model.remove(&(members.score(id) as u32, members.member(id).to_vec()));
                    order.remove(&members, id);
                    let last = (members.len() - 1) as SlotId;
                    if id != last {
                        order.rename(&members, last, id);
                    }
                    members.swap_remove(id);
                }
            }
            prop_assert_eq!(order.len, model.len());
            prop_assert_eq!(check(&order.root, &members), model.len());
            for (rank, (score, member)) in model.iter().enumerate() {
                let id = order.get(rank).expect("a rank below the length");
                prop_assert_eq!((members.score(id), members.member(id)), (f64::from(*score), member.as_slice()));
                prop_assert_eq!(order.rank(&members, id), rank);
            }
            prop_assert_eq!(order.get(model.len()), None);
            for bound in [0, 1, scores / 2, scores] {
                let want = model.iter().filter(|(score, _)| *score < bound).count();
                let seat = order.seek(&members, |score, _| score < f64::from(bound));
                let score_at = |rank| Some(members.score(order.get(rank)?));
                prop_assert_eq!(seat.rank, want);
                prop_assert_eq!(seat.score_before, want.checked_sub(1).and_then(score_at));
                prop_assert_eq!(seat.score_behind, score_at(want));
                for (at, id) in seat.behind.iter().enumerate() {
                    prop_assert_eq!(order.get(want + at), Some(*id));
                }
            }
        }
    }
}
