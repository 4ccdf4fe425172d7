//! The nodes of a radix tree over ids of streams, counted without building it.
//!
//! Redis keeps ids as 16 bytes, most significant first, in a tree whose chains of single children are one node each.
//! Its nodes are the leaves, the branches, and the chains between them; which these are follows from how many bytes
//! each id has in common with the one before.

const ID_BYTES: usize = 16;

/// Counts the nodes of the tree over ids that come in ascending order.
#[derive(Debug, Default)]
pub struct Nodes {
    ids: u64,
    /// Branches and chains that are known to be complete.
    inner: u64,
    last: [u8; ID_BYTES],
    /// Depths of the branches above the last leaf, ascending: at most one a byte.
    open: Vec<usize>,
}

impl Nodes {
    pub fn clear(&mut self) {
        self.ids = 0;
        self.inner = 0;
        self.open.clear();
    }

    pub fn ids(&self) -> u64 {
        self.ids
    }

    pub fn add(&mut self, id: [u8; ID_BYTES]) {
        if self.ids > 0 {
            let common = self.last.iter().zip(&id).take_while(|(a, b)| a == b);
            self.branch(common.count());
        }
        self.ids += 1;
        self.last = id;
    }

    /// The next leaf hangs off a branch at this depth.
    fn branch(&mut self, depth: usize) {
        if depth == ID_BYTES {
            return; // The same id again, which only damage has.
        }
        let mut child = ID_BYTES;
        while let Some(top) = self.open.pop_if(|top| *top > depth) {
            self.inner += chain(top + 1, child);
            child = top;
        }
        if self.open.last() != Some(&depth) {
            self.open.push(depth);
            self.inner += 1;
        }
        self.inner += chain(depth + 1, child);
    }

    /// All nodes of the tree.
    pub fn count(&self) -> u64 {
        if self.ids == 0 {
            return 1;
        }
        let mut child = ID_BYTES;
        let mut nodes = self.ids + self.inner;
        for top in self.open.iter().rev() {
            nodes += chain(top + 1, child);
            child = *top;
        }
        nodes + chain(0, child)
    }
}

/// A chain between two depths is a node if there is anything between them.
fn chain(from: usize, to: usize) -> u64 {
    u64::from(to > from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ids: &[u128]) -> u64 {
        let mut nodes = Nodes::default();
        ids.iter().for_each(|id| nodes.add(id.to_be_bytes()));
        nodes.count()
    }

    #[test]
    fn leaves_branches_and_chains_are_nodes() {
        assert_eq!(count(&[]), 1, "the root");
        assert_eq!(count(&[7]), 2, "a chain and a leaf");
        assert_eq!(count(&[7, 8]), 4, "a chain, a branch, two leaves");
        assert_eq!(count(&[7, 8, 9]), 5);
        // A chain of 14, a branch, a leaf behind one byte, and a branch with two leaves.
        assert_eq!(count(&[7, 0x100, 0x101]), 1 + 1 + (1 + 1) + (1 + 2));
        assert_eq!(
            count(&[1, 1 << 120]),
            1 + 2 * (1 + 1),
            "a branch at the root"
        );
    }
}
