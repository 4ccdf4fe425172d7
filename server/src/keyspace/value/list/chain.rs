//! The chain of nodes of a large list.
//!
//! Invariants
//! - No node is empty; `len` is the sum of the nodes' counts.
//! - A node holds at most what `Limits::list_listpack_size` allowed when it was filled.

use std::collections::VecDeque;

use dfsnap_formats::encoding::listpack::{self, Element, Listpack};

use super::{End, NodeRef};
use crate::keyspace::value::Limits;

/// Nodes limited by a count still end at this many bytes, as in Redis.
const COUNTED_NODE_BYTES_MAX: usize = 8192;
/// More elements than this in one node cannot be loaded by Redis.
const NODE_ELEMENTS_MAX: usize = 32768;

/// The nodes of a large list.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    pub(super) nodes: VecDeque<Node>,
    pub(super) len: usize,
}

/// A node of a large list.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Elements in `content`: 1..=32768.
    pub(super) count: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Packed(Listpack),
    Plain(Box<[u8]>),
}

impl Chain {
    pub(super) fn push(&mut self, end: End, element: &[u8], parsed: Element, limits: &Limits) {
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

    pub(super) fn pop(&mut self, end: End) -> Option<Vec<u8>> {
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

    pub(super) fn position(&self, index: i64) -> Option<usize> {
        position(index, self.len)
    }

    /// The node that holds element `index`, and the place in it. Walks from the nearer end.
    pub(super) fn seek(&self, index: usize) -> Option<(usize, usize)> {
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

    pub(super) fn set(&mut self, index: usize, element: &[u8], limits: &Limits) {
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
    pub(super) fn insert(
        &mut self,
        index: usize,
        element: &[u8],
        parsed: Element,
        limits: &Limits,
    ) {
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

    pub(super) fn remove_range(&mut self, index: usize, count: usize) {
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

    pub(super) fn remove_equal(&mut self, element: &[u8], from: End, limit: usize) -> usize {
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
    pub(super) fn new(element: &[u8], parsed: Element, limits: &Limits) -> Node {
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

    pub(super) fn packed(pack: Listpack) -> Node {
        let count = u32::try_from(pack.len()).expect("a pack of 4 GB has fewer elements");
        Node {
            content: Content::Packed(pack),
            count,
        }
    }

    pub(super) fn plain(bytes: Box<[u8]>) -> Node {
        Node {
            content: Content::Plain(bytes),
            count: 1,
        }
    }

    pub(super) fn as_ref(&self) -> NodeRef<'_> {
        match &self.content {
            Content::Packed(pack) => NodeRef::Packed(pack),
            Content::Plain(bytes) => NodeRef::Plain(bytes),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match &self.content {
            Content::Packed(pack) => pack.heap_bytes(),
            Content::Plain(bytes) => bytes.len(),
        }
    }

    pub(super) fn get(&self, offset: usize) -> Option<Element<'_>> {
        match &self.content {
            Content::Packed(pack) => pack.get(offset as i64),
            Content::Plain(bytes) => (offset == 0).then_some(Element::Str(bytes)),
        }
    }

    pub(super) fn iter_from(&self, offset: usize) -> NodeIter<'_> {
        match &self.content {
            Content::Packed(pack) => {
                NodeIter::Packed(pack.iter_from(pack.seek(offset as i64).unwrap_or(pack.end())))
            }
            Content::Plain(bytes) => NodeIter::Plain((offset == 0).then_some(bytes)),
        }
    }

    /// Keeps the first `offset` elements, at least one, and returns a node with the others, at least one.
    pub(super) fn split_off(&mut self, offset: usize) -> Node {
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

    pub(super) fn remove_range(&mut self, offset: usize, count: usize) {
        let Content::Packed(pack) = &mut self.content else {
            unreachable!("a plain node leaves as a whole")
        };
        pack.delete_range(offset as i64, count);
        self.count -= count as u32;
    }
}

#[derive(Clone)]
pub(super) enum NodeIter<'a> {
    Packed(listpack::Iter<'a>),
    Plain(Option<&'a [u8]>),
}

impl<'a> NodeIter<'a> {
    pub(super) fn next(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next(),
            NodeIter::Plain(bytes) => bytes.take().map(Element::Str),
        }
    }

    pub(super) fn next_back(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next_back(),
            NodeIter::Plain(bytes) => bytes.take().map(Element::Str),
        }
    }
}

/// The index counted from the start, if there is such an element.
pub(super) fn position(index: i64, len: usize) -> Option<usize> {
    let from_start = if index < 0 { index + len as i64 } else { index };
    usize::try_from(from_start).ok().filter(|&at| at < len)
}

pub(super) fn push_to(pack: &mut Listpack, end: End, element: Element) {
    match end {
        End::Left => pack.push_front(element),
        End::Right => pack.push_back(element),
    }
}

pub(super) fn pop_from(pack: &mut Listpack, end: End) -> Option<Vec<u8>> {
    let place = match end {
        End::Left => pack.first(),
        End::Right => pack.last(),
    }?;
    let element = pack.at(place).to_vec();
    pack.delete(place);
    Some(element)
}

pub(super) fn remove_equal_in(
    pack: &mut Listpack,
    element: &[u8],
    from: End,
    limit: usize,
) -> usize {
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

pub(super) fn node_bytes_max(limits: &Limits) -> usize {
    match limits.list_listpack_size {
        0.. => COUNTED_NODE_BYTES_MAX,
        -1 => 4096,
        -2 => 8192,
        -3 => 16384,
        -4 => 32768,
        _ => 65536,
    }
}

pub(super) fn node_count_max(limits: &Limits) -> usize {
    match limits.list_listpack_size {
        size @ 0.. => usize::try_from(size)
            .unwrap_or(usize::MAX)
            .clamp(1, NODE_ELEMENTS_MAX),
        _ => NODE_ELEMENTS_MAX,
    }
}

pub(super) fn node_has_room(
    pack: &Listpack,
    count: usize,
    element: Element,
    limits: &Limits,
) -> bool {
    count < node_count_max(limits)
        && pack.byte_len() + Listpack::entry_len(element) <= node_bytes_max(limits)
}

/// Whether an element is too large to share a node.
pub(super) fn is_plain(element: Element, limits: &Limits) -> bool {
    Listpack::EMPTY_BYTES + Listpack::entry_len(element) > node_bytes_max(limits)
}
