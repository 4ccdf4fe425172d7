//! Lists: one listpack while small, a chain of them when large.
//!
//! A node is what Redis stores as a quicklist node, so saving a list is copying its nodes. An element larger than a
//! whole node is a node of its own, as plain bytes.
//!
//! Invariants
//! - No node of a chain is empty; `len` is the sum of the nodes' counts, and a chain has at least one node.
//! - A node holds at most what `Limits::list_listpack_size` allowed when it was filled.

use std::collections::VecDeque;

use dfsnap_formats::encoding::listpack::{self, Element, Listpack};

use super::Limits;

/// Nodes limited by a count still end at this many bytes, as in Redis.
const COUNTED_NODE_BYTES_MAX: usize = 8192;
/// More elements than this in one node cannot be loaded by Redis.
const NODE_ELEMENTS_MAX: usize = 32768;

/// A list of byte strings.
#[derive(Debug, Clone)]
pub enum List {
    /// A small list.
    Packed(Listpack),
    /// A chain of nodes.
    Chain(Box<Chain>),
}

/// The nodes of a large list.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    nodes: VecDeque<Node>,
    len: usize,
}

/// A node of a large list.
#[derive(Debug, Clone)]
struct Node {
    content: Content,
    /// Elements in `content`: 1..=32768.
    count: u32,
}

#[derive(Debug, Clone)]
enum Content {
    Packed(Listpack),
    Plain(Box<[u8]>),
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

impl Chain {
    fn push(&mut self, end: End, element: &[u8], parsed: Element, limits: &Limits) {
        self.len += 1;
        let node = match end {
            End::Left => self.nodes.front_mut(),
            End::Right => self.nodes.back_mut(),
        };
        if let Some(Node {
            content: Content::Packed(pack),
            count,
        }) = node
            && node_has_room(pack, *count as usize, parsed, limits)
        {
            push_to(pack, end, parsed);
            *count += 1;
            return;
        }
        let node = Node::new(element, parsed, limits);
        match end {
            End::Left => self.nodes.push_front(node),
            End::Right => self.nodes.push_back(node),
        }
    }

    fn pop(&mut self, end: End) -> Option<Vec<u8>> {
        let node = match end {
            End::Left => self.nodes.front_mut(),
            End::Right => self.nodes.back_mut(),
        }?;
        let element = match &mut node.content {
            Content::Packed(pack) => pop_from(pack, end).expect("a node is not empty"),
            Content::Plain(bytes) => std::mem::take(bytes).into_vec(),
        };
        node.count -= 1;
        self.len -= 1;
        if node.count == 0 {
            match end {
                End::Left => self.nodes.pop_front(),
                End::Right => self.nodes.pop_back(),
            };
        }
        Some(element)
    }

    fn position(&self, index: i64) -> Option<usize> {
        position(index, self.len)
    }

    /// The node that holds element `index`, and the place in it. Walks from the nearer end.
    fn seek(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index <= self.len / 2 {
            let mut left = index;
            for (at, node) in self.nodes.iter().enumerate() {
                if left < node.count as usize {
                    return Some((at, left));
                }
                left -= node.count as usize;
            }
        } else {
            let mut behind = self.len - index;
            for (at, node) in self.nodes.iter().enumerate().rev() {
                if behind <= node.count as usize {
                    return Some((at, node.count as usize - behind));
                }
                behind -= node.count as usize;
            }
        }
        unreachable!(
            "the counts of {} nodes sum up to {}",
            self.nodes.len(),
            self.len
        )
    }

    fn set(&mut self, index: usize, element: &[u8], limits: &Limits) {
        let (at, offset) = self.seek(index).expect("an index below the length");
        let parsed = Element::parse(element);
        let is_plain = is_plain(parsed, limits);
        match &mut self.nodes[at].content {
            Content::Packed(pack) if !is_plain => {
                let place = pack.seek(offset as i64).expect("an offset below the count");
                let gone = Listpack::entry_len(pack.at(place));
                if pack.byte_len() - gone + Listpack::entry_len(parsed) <= node_bytes_max(limits) {
                    pack.replace(place, parsed);
                    return;
                }
            }
            Content::Plain(bytes) if is_plain => {
                *bytes = element.into();
                return;
            }
            _ => {}
        }
        self.remove_range(index, 1);
        if index == self.len {
            self.push(End::Right, element, parsed, limits);
        } else {
            self.insert(index, element, parsed, limits);
        }
    }

    /// Puts an element before the one at `index`.
    fn insert(&mut self, index: usize, element: &[u8], parsed: Element, limits: &Limits) {
        let (at, offset) = self.seek(index).expect("an index below the length");
        self.len += 1;
        if let Node {
            content: Content::Packed(pack),
            count,
        } = &mut self.nodes[at]
            && node_has_room(pack, *count as usize, parsed, limits)
        {
            let place = pack.seek(offset as i64).expect("an offset below the count");
            pack.insert(place, parsed);
            *count += 1;
            return;
        }
        if offset == 0 {
            if let Some(Node {
                content: Content::Packed(pack),
                count,
            }) = at.checked_sub(1).map(|at| &mut self.nodes[at])
                && node_has_room(pack, *count as usize, parsed, limits)
            {
                pack.push_back(parsed);
                *count += 1;
                return;
            }
            self.nodes.insert(at, Node::new(element, parsed, limits));
            return;
        }
        let tail = self.nodes[at].split_off(offset);
        self.nodes.insert(at + 1, tail);
        match &mut self.nodes[at] {
            Node {
                content: Content::Packed(pack),
                count,
            } if node_has_room(pack, *count as usize, parsed, limits) => {
                pack.push_back(parsed);
                *count += 1;
            }
            _ => self
                .nodes
                .insert(at + 1, Node::new(element, parsed, limits)),
        }
    }

    fn remove_range(&mut self, index: usize, count: usize) {
        let count = count.min(self.len.saturating_sub(index));
        let mut left = count;
        if let Some((mut at, mut offset)) = self.seek(index) {
            while left > 0 {
                let node = &mut self.nodes[at];
                let here = (node.count as usize - offset).min(left);
                if here == node.count as usize {
                    // Whole nodes that follow each other leave in one move.
                    let first = at;
                    let mut whole = 0;
                    while at < self.nodes.len() && self.nodes[at].count as usize <= left {
                        left -= self.nodes[at].count as usize;
                        whole += 1;
                        at += 1;
                    }
                    self.nodes.drain(first..first + whole);
                    at = first;
                } else {
                    node.remove_range(offset, here);
                    left -= here;
                    at += 1;
                }
                offset = 0;
            }
        }
        self.len -= count;
    }

    fn remove_equal(&mut self, element: &[u8], from: End, limit: usize) -> usize {
        let mut left = limit;
        let mut clean = |node: &mut Node| {
            if left == 0 {
                return;
            }
            match &mut node.content {
                Content::Packed(pack) => {
                    let removed = remove_equal_in(pack, element, from, left);
                    left -= removed;
                    node.count -= removed as u32;
                }
                Content::Plain(bytes) => {
                    if **bytes == *element {
                        left -= 1;
                        node.count = 0;
                    }
                }
            }
        };
        match from {
            End::Left => self.nodes.iter_mut().for_each(&mut clean),
            End::Right => self.nodes.iter_mut().rev().for_each(&mut clean),
        }
        self.nodes.retain(|node| node.count > 0);
        self.len -= limit - left;
        limit - left
    }
}

impl Node {
    fn new(element: &[u8], parsed: Element, limits: &Limits) -> Node {
        if is_plain(parsed, limits) {
            return Node::plain(element.into());
        }
        let mut pack = Listpack::with_capacity(Listpack::EMPTY_BYTES + Listpack::entry_len(parsed));
        pack.push_back(parsed);
        Node {
            content: Content::Packed(pack),
            count: 1,
        }
    }

    fn packed(pack: Listpack) -> Node {
        let count = u32::try_from(pack.len()).expect("a pack of 4 GB has fewer elements");
        Node {
            content: Content::Packed(pack),
            count,
        }
    }

    fn plain(bytes: Box<[u8]>) -> Node {
        Node {
            content: Content::Plain(bytes),
            count: 1,
        }
    }

    fn as_ref(&self) -> NodeRef<'_> {
        match &self.content {
            Content::Packed(pack) => NodeRef::Packed(pack),
            Content::Plain(bytes) => NodeRef::Plain(bytes),
        }
    }

    fn heap_bytes(&self) -> usize {
        match &self.content {
            Content::Packed(pack) => pack.heap_bytes(),
            Content::Plain(bytes) => bytes.len(),
        }
    }

    fn get(&self, offset: usize) -> Option<Element<'_>> {
        match &self.content {
            Content::Packed(pack) => pack.get(offset as i64),
            Content::Plain(bytes) => (offset == 0).then_some(Element::Str(bytes)),
        }
    }

    fn iter_from(&self, offset: usize) -> NodeIter<'_> {
        match &self.content {
            Content::Packed(pack) => {
                NodeIter::Packed(pack.iter_from(pack.seek(offset as i64).unwrap_or(pack.end())))
            }
            Content::Plain(bytes) => NodeIter::Plain((offset == 0).then_some(bytes)),
        }
    }

    /// Keeps the first `offset` elements, at least one, and returns a node with the others, at least one.
    fn split_off(&mut self, offset: usize) -> Node {
        let Content::Packed(pack) = &mut self.content else {
            unreachable!("a plain node has no inner place to split at")
        };
        let tail = pack.split_off(offset);
        let count = self.count - offset as u32;
        self.count = offset as u32;
        Node {
            content: Content::Packed(tail),
            count,
        }
    }

    fn remove_range(&mut self, offset: usize, count: usize) {
        let Content::Packed(pack) = &mut self.content else {
            unreachable!("a plain node leaves as a whole")
        };
        pack.delete_range(offset as i64, count);
        self.count -= count as u32;
    }
}

/// Elements of a list, from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    front: Option<NodeIter<'a>>,
    nodes: std::collections::vec_deque::Iter<'a, Node>,
    back: Option<NodeIter<'a>>,
}

#[derive(Clone)]
enum NodeIter<'a> {
    Packed(listpack::Iter<'a>),
    Plain(Option<&'a [u8]>),
}

impl<'a> NodeIter<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next(),
            NodeIter::Plain(bytes) => bytes.take().map(Element::Str),
        }
    }

    fn next_back(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next_back(),
            NodeIter::Plain(bytes) => bytes.take().map(Element::Str),
        }
    }
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

/// The index counted from the start, if there is such an element.
fn position(index: i64, len: usize) -> Option<usize> {
    let from_start = if index < 0 { index + len as i64 } else { index };
    usize::try_from(from_start).ok().filter(|&at| at < len)
}

fn push_to(pack: &mut Listpack, end: End, element: Element) {
    match end {
        End::Left => pack.push_front(element),
        End::Right => pack.push_back(element),
    }
}

fn pop_from(pack: &mut Listpack, end: End) -> Option<Vec<u8>> {
    let place = match end {
        End::Left => pack.first(),
        End::Right => pack.last(),
    }?;
    let element = pack.at(place).to_vec();
    pack.delete(place);
    Some(element)
}

fn remove_equal_in(pack: &mut Listpack, element: &[u8], from: End, limit: usize) -> usize {
    let mut removed = 0;
    match from {
        End::Left => {
            let mut place = pack.first();
            while let Some(at) = place.filter(|_| removed < limit) {
                let hit = pack.find(at, element, 1);
                removed += usize::from(hit.is_some());
                place = hit.and_then(|at| pack.delete(at));
            }
        }
        End::Right => {
            let mut place = pack.last();
            while let Some(at) = place.filter(|_| removed < limit) {
                place = pack.prev(at);
                if pack.at(at).eq_bytes(element) {
                    pack.delete(at);
                    removed += 1;
                }
            }
        }
    }
    removed
}

fn node_bytes_max(limits: &Limits) -> usize {
    match limits.list_listpack_size {
        0.. => COUNTED_NODE_BYTES_MAX,
        -1 => 4096,
        -2 => 8192,
        -3 => 16384,
        -4 => 32768,
        _ => 65536,
    }
}

fn node_count_max(limits: &Limits) -> usize {
    match limits.list_listpack_size {
        size @ 0.. => usize::try_from(size)
            .unwrap_or(usize::MAX)
            .clamp(1, NODE_ELEMENTS_MAX),
        _ => NODE_ELEMENTS_MAX,
    }
}

fn node_has_room(pack: &Listpack, count: usize, element: Element, limits: &Limits) -> bool {
    count < node_count_max(limits)
        && pack.byte_len() + Listpack::entry_len(element) <= node_bytes_max(limits)
}

/// Whether an element is too large to share a node.
fn is_plain(element: Element, limits: &Limits) -> bool {
    Listpack::EMPTY_BYTES + Listpack::entry_len(element) > node_bytes_max(limits)
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
