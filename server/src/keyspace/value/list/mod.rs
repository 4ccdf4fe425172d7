//! Lists: one listpack while small, a chain of them when large.
//!
//! A node is what Redis stores as a quicklist node, so saving a list is copying its nodes. An element larger than a
//! whole node is a node of its own, as plain bytes.
//!
//! Invariants
//! - No node of a chain is empty; `len` is the sum of the nodes' counts, and a chain has at least one node.
//! - A node holds at most what `Limits::list_listpack_size` allowed when it was filled.

mod chain;

use dfsnap_formats::encoding::listpack::{Element, Listpack};

use super::Limits;
use chain::{Content, Node, NodeIter};
use chain::{
    node_bytes_max, node_count_max, node_has_room, pop_from, position, push_to, remove_equal_in,
};

pub use chain::Chain;

/// A list of byte strings.
#[derive(Debug, Clone)]
pub enum List {
    /// A small list.
    Packed(Listpack),
    /// A chain of nodes.
    Chain(Box<Chain>),
}

/// A node as it is saved.
#[derive(Debug, Clone, Copy)]
pub enum NodeRef<'a> {
    /// Several elements.
    Packed(&'a Listpack),
    /// One large element.
    Plain(&'a [u8]),
}

/// Which end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The head, index 0.
    Left,
    /// The tail, index -1.
    Right,
}

impl Default for List {
    fn default() -> Self {
        List::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> List {
        List::Packed(Listpack::new())
    }

    /// The list whose saved nodes are these, in order. Empty packs are left out.
    pub fn from_nodes(
        nodes: impl IntoIterator<Item = Result<Listpack, Box<[u8]>>>,
        limits: &Limits,
    ) -> List {
        let mut chain = Chain::default();
        for node in nodes {
            let node = match node {
                Ok(pack) if pack.is_empty() => continue,
                Ok(pack) => Node::packed(pack),
                Err(bytes) => Node::plain(bytes),
            };
            chain.len += node.count as usize;
            chain.nodes.push_back(node);
        }
        if chain.nodes.is_empty() {
            return List::new();
        }
        let mut list = List::Chain(Box::new(chain));
        list.shrink(limits, 1);
        list
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            List::Packed(pack) => pack.len(),
            List::Chain(chain) => chain.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING replies.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            List::Packed(_) => "listpack",
            List::Chain(_) => "quicklist",
        }
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            List::Packed(pack) => pack.heap_bytes(),
            List::Chain(chain) => {
                let nodes: usize = chain.nodes.iter().map(Node::heap_bytes).sum();
                size_of::<Chain>() + chain.nodes.capacity() * size_of::<Node>() + nodes
            }
        }
    }

    /// Number of nodes to save.
    pub fn node_count(&self) -> usize {
        match self {
            List::Packed(_) => 1,
            List::Chain(chain) => chain.nodes.len(),
        }
    }

    /// Node `index`, to save it.
    pub fn node(&self, index: usize) -> Option<NodeRef<'_>> {
        match self {
            List::Packed(pack) => (index == 0).then_some(NodeRef::Packed(pack)),
            List::Chain(chain) => chain.nodes.get(index).map(Node::as_ref),
        }
    }

    /// Adds an element at one end.
    pub fn push(&mut self, end: End, element: &[u8], limits: &Limits) {
        let parsed = Element::parse(element);
        if let List::Packed(pack) = self {
            if node_has_room(pack, pack.len(), parsed, limits) {
                push_to(pack, end, parsed);
                return;
            }
            self.grow();
        }
        let List::Chain(chain) = self else {
            unreachable!("a list that outgrew its pack is a chain")
        };
        chain.push(end, element, parsed, limits);
    }

    /// Takes the element at one end.
    pub fn pop(&mut self, end: End, limits: &Limits) -> Option<Vec<u8>> {
        match self {
            List::Packed(pack) => pop_from(pack, end),
            List::Chain(chain) => {
                let element = chain.pop(end);
                self.shrink(limits, 2);
                element
            }
        }
    }

    /// The element at `index`; negative counts from the end.
    pub fn get(&self, index: i64) -> Option<Element<'_>> {
        match self {
            List::Packed(pack) => pack.get(index),
            List::Chain(chain) => {
                let (node, offset) = chain.seek(chain.position(index)?)?;
                chain.nodes[node].get(offset)
            }
        }
    }

    /// Puts `element` in place of the one at `index`; false if there is none.
    pub fn set(&mut self, index: i64, element: &[u8], limits: &Limits) -> bool {
        let Some(index) = position(index, self.len()) else {
            return false;
        };
        let parsed = Element::parse(element);
        if let List::Packed(pack) = self {
            let place = pack.seek(index as i64).expect("an index below the length");
            let gone = Listpack::entry_len(pack.at(place));
            if pack.byte_len() - gone + Listpack::entry_len(parsed) <= node_bytes_max(limits) {
                pack.replace(place, parsed);
                return true;
            }
            self.grow();
        }
        let List::Chain(chain) = self else {
            unreachable!("a list that outgrew its pack is a chain")
        };
        chain.set(index, element, limits);
        self.shrink(limits, 2);
        true
    }

    /// Puts `element` before the one at `index`, or last if `index` is the length.
    pub fn insert(&mut self, index: usize, element: &[u8], limits: &Limits) {
        let len = self.len();
        assert!(index <= len, "insert at {index} of {len}");
        if index == 0 {
            return self.push(End::Left, element, limits);
        }
        if index == len {
            return self.push(End::Right, element, limits);
        }
        let parsed = Element::parse(element);
        if let List::Packed(pack) = self {
            if node_has_room(pack, len, parsed, limits) {
                let place = pack.seek(index as i64).expect("an index below the length");
                pack.insert(place, parsed);
                return;
            }
            self.grow();
        }
        let List::Chain(chain) = self else {
            unreachable!("a list that outgrew its pack is a chain")
        };
        chain.insert(index, element, parsed, limits);
    }

    /// Removes `count` elements from `index` on.
    pub fn remove_range(&mut self, index: usize, count: usize, limits: &Limits) {
        match self {
            List::Packed(pack) => pack.delete_range(index as i64, count),
            List::Chain(chain) => {
                chain.remove_range(index, count);
                self.shrink(limits, 2);
            }
        }
    }

    /// Removes elements equal to `element`: at most `limit` of them, from the given end on. Returns how many.
    pub fn remove_equal(
        &mut self,
        element: &[u8],
        from: End,
        limit: usize,
        limits: &Limits,
    ) -> usize {
        let removed = match self {
            List::Packed(pack) => remove_equal_in(pack, element, from, limit),
            List::Chain(chain) => chain.remove_equal(element, from, limit),
        };
        self.shrink(limits, 2);
        removed
    }

    /// All elements, from either end.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The elements from `index` on.
    pub fn iter_from(&self, index: usize) -> Iter<'_> {
        match self {
            List::Packed(pack) => {
                let place = pack.seek(index as i64).unwrap_or(pack.end());
                Iter {
                    front: Some(NodeIter::Packed(pack.iter_from(place))),
                    nodes: Default::default(),
                    back: None,
                }
            }
            List::Chain(chain) => {
                let Some((node, offset)) = chain.seek(index) else {
                    return Iter {
                        front: None,
                        nodes: Default::default(),
                        back: None,
                    };
                };
                let front = chain.nodes[node].iter_from(offset);
                Iter {
                    front: Some(front),
                    nodes: chain.nodes.range(node + 1..),
                    back: None,
                }
            }
        }
    }

    /// Makes a pack a chain of one node.
    fn grow(&mut self) {
        if let List::Packed(pack) = self {
            let pack = std::mem::take(pack);
            let mut chain = Chain::default();
            if !pack.is_empty() {
                chain.len = pack.len();
                chain.nodes.push_back(Node::packed(pack));
            }
            *self = List::Chain(Box::new(chain));
        }
    }

    /// Makes a chain of one node a pack, if that node takes at most 1/`divisor` of what is allowed.
    fn shrink(&mut self, limits: &Limits, divisor: usize) {
        let List::Chain(chain) = self else { return };
        let is_single = chain.nodes.len() == 1;
        match chain.nodes.front_mut() {
            None => *self = List::new(),
            Some(Node {
                content: Content::Packed(pack),
                count,
            }) if is_single => {
                let is_small = pack.byte_len() <= node_bytes_max(limits) / divisor
                    && *count as usize <= node_count_max(limits) / divisor;
                if is_small {
                    *self = List::Packed(std::mem::take(pack));
                }
            }
            Some(_) => {}
        }
    }
}

/// Elements of a list, from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    front: Option<NodeIter<'a>>,
    nodes: std::collections::vec_deque::Iter<'a, Node>,
    back: Option<NodeIter<'a>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        loop {
            if let Some(element) = self.front.as_mut().and_then(NodeIter::next) {
                return Some(element);
            }
            match self.nodes.next() {
                Some(node) => self.front = Some(node.iter_from(0)),
                None => return self.back.as_mut().and_then(NodeIter::next),
            }
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.back.as_mut().and_then(NodeIter::next_back) {
                return Some(element);
            }
            match self.nodes.next_back() {
                Some(node) => self.back = Some(node.iter_from(0)),
                None => return self.front.as_mut().and_then(NodeIter::next_back),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Push(bool, Vec<u8>),
        Pop(bool),
        Insert(usize, Vec<u8>),
        Set(usize, Vec<u8>),
        RemoveRange(usize, usize),
        RemoveEqual(bool, u8, usize),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => (0u8..8).prop_map(|n| n.to_string().into_bytes()),
            3 => prop::collection::vec(any::<u8>(), 0..600),
            1 => (8000usize..9000).prop_map(|len| vec![b'x'; len]),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (any::<bool>(), text()).prop_map(|(left, text)| Op::Push(left, text)),
            2 => any::<bool>().prop_map(Op::Pop),
            3 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Insert(at, text)),
            2 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Set(at, text)),
            1 => (any::<usize>(), 0usize..20).prop_map(|(at, count)| Op::RemoveRange(at, count)),
            1 => (any::<bool>(), 0u8..8, 1usize..9).prop_map(|(left, n, limit)| Op::RemoveEqual(left, n, limit)),
        ]
    }

    fn end(left: bool) -> End {
        if left { End::Left } else { End::Right }
    }

    fn apply(op: Op, list: &mut List, model: &mut Vec<Vec<u8>>, limits: &Limits) {
        let len = model.len();
        match op {
            Op::Push(left, text) => {
                list.push(end(left), &text, limits);
                model.insert(if left { 0 } else { len }, text);
            }
            Op::Pop(left) => {
                let want = if left && len > 0 {
                    Some(model.remove(0))
                } else {
                    model.pop()
                };
                assert_eq!(list.pop(end(left), limits), want);
            }
            Op::Insert(at, text) => {
                list.insert(at % (len + 1), &text, limits);
                model.insert(at % (len + 1), text);
            }
            Op::Set(at, text) if len > 0 => {
                assert!(list.set((at % len) as i64 - len as i64, &text, limits));
                model[at % len] = text;
            }
            Op::Set(..) => assert!(!list.set(0, b"x", limits)),
            Op::RemoveRange(at, count) => {
                let at = at % (len + 1);
                list.remove_range(at, count, limits);
                model.drain(at..len.min(at + count));
            }
            Op::RemoveEqual(left, n, limit) => {
                let text = n.to_string().into_bytes();
                let hits = model
                    .iter()
                    .enumerate()
                    .filter(|(_, element)| **element == text)
                    .map(|(at, _)| at);
                let mut hits: Vec<usize> = hits.collect();
                if !left {
                    hits.reverse();
                }
                hits.truncate(limit);
                assert_eq!(
                    list.remove_equal(&text, end(left), limit, limits),
                    hits.len()
                );
                hits.sort_unstable();
                for at in hits.into_iter().rev() {
                    model.remove(at);
                }
            }
        }
    }

    fn check(list: &List) {
        if let List::Chain(chain) = list {
            assert!(!chain.nodes.is_empty());
            let counts: usize = chain.nodes.iter().map(|node| node.count as usize).sum();
            assert_eq!(chain.len, counts);
            for node in &chain.nodes {
                let real = match &node.content {
                    Content::Packed(pack) => pack.len(),
                    Content::Plain(_) => 1,
                };
                assert!(
                    node.count as usize == real && real > 0,
                    "{} of {real}",
                    node.count
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_vector(ops in prop::collection::vec(op(), 0..120), size in prop_oneof![Just(-2i64), Just(3), Just(-1)]) {
            let limits = Limits { list_listpack_size: size, ..Limits::default() };
            let mut list = List::new();
            let mut model = Vec::new();
            for op in ops {
                apply(op, &mut list, &mut model, &limits);
                check(&list);
            }
            let forwards: Vec<_> = list.iter().map(Element::to_vec).collect();
            prop_assert_eq!(&forwards, &model);
            let backwards: Vec<_> = list.iter().rev().map(Element::to_vec).collect();
            prop_assert!(backwards.iter().eq(model.iter().rev()));
            for index in 0..model.len() {
                prop_assert_eq!(list.get(index as i64).map(Element::to_vec), Some(model[index].clone()));
                prop_assert_eq!(list.iter_from(index).count(), model.len() - index);
            }
            let nodes = (0..list.node_count()).map(|at| match list.node(at).unwrap() {
                NodeRef::Packed(pack) => Ok(pack.clone()),
                NodeRef::Plain(bytes) => Err(bytes.into()),
            });
            let again = List::from_nodes(nodes, &limits);
            prop_assert!(again.iter().map(Element::to_vec).eq(model));
        }
    }

    #[test]
    fn encoding_follows_the_size_of_the_first_node() {
        let limits = Limits {
            list_listpack_size: 4,
            ..Limits::default()
        };
        let mut list = List::new();
        for n in 0..4 {
            list.push(End::Right, &[n], &limits);
        }
        assert_eq!(list.encoding_name(), "listpack");
        list.push(End::Right, b"fifth", &limits);
        assert_eq!((list.encoding_name(), list.node_count()), ("quicklist", 2));
        list.pop(End::Right, &limits);
        assert_eq!(
            list.encoding_name(),
            "quicklist",
            "no change back before half the limit"
        );
        list.remove_range(0, 2, &limits);
        assert_eq!(list.encoding_name(), "listpack");
    }

    #[test]
    fn a_huge_element_is_a_plain_node() {
        let limits = Limits::default();
        let mut list = List::new();
        list.push(End::Right, b"small", &limits);
        list.push(End::Right, &vec![b'h'; 10_000], &limits);
        list.push(End::Right, b"small", &limits);
        assert_eq!(list.node_count(), 3);
        assert!(matches!(list.node(1), Some(NodeRef::Plain(bytes)) if bytes.len() == 10_000));
    }
}
