//! HyperLogLog: an estimate of how many different things were counted, kept as a string in the layout of Redis.
//!
//! ```text
//! "HYLL" | encoding u8: 0 dense, 1 sparse | 3 unused | cached count u64 LE, top bit set = stale | registers
//! dense:  16384 registers of 6 bits, lowest bits first: 12288 bytes
//! sparse: 00nnnnnn           n + 1 registers are zero
//!         01nnnnnn nnnnnnnn  n + 1 registers are zero, high part first
//!         1vvvvvnn           n + 1 registers are v + 1
//! ```
//! Replicas apply PFADD to their own copy, so every byte must come out as in Redis: which runs are split and joined, and
//! when sparse becomes dense.
//!
//! The estimator is Otmar Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017).

/// What the string begins with.
const MAGIC: &[u8; 4] = b"HYLL";
const HEADER: usize = 16;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of the hash that a register counts the zeros of.
const RANK_BITS: u32 = 64 - INDEX_BITS;
const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;
/// `hll-sparse-max-bytes`: a longer sparse form becomes dense.
pub const SPARSE_BYTES_MAX: usize = 3000;
const ZERO_RUN_MAX: usize = 64;
const VALUE_RUN_MAX: usize = 4;
const SPARSE_VALUE_MAX: u8 = 32;

/// Why a string is no HyperLogLog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not look like one.
    NotOne,
    /// It looks like one, and its sparse registers do not add up.
    Corrupt,
}

/// Checks that the header and the length are those of a HyperLogLog.
pub fn check(bytes: &[u8]) -> Result<(), Damage> {
    let is_one = bytes.len() >= HEADER
        && bytes.starts_with(MAGIC)
        && (bytes[4] == SPARSE || (bytes[4] == DENSE && bytes.len() == DENSE_BYTES));
    if is_one { Ok(()) } else { Err(Damage::NotOne) }
}

/// A HyperLogLog that has counted nothing.
pub fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4] = SPARSE;
    Run::Zeros(REGISTERS).append_to(&mut bytes);
    bytes
}

/// The register of an element, and what it must at least be.
fn place_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur64(element, 0xadc8_3b19);
    let index = hash as usize & (REGISTERS - 1);
    // A bit behind the others bounds the count.
    let rest = hash >> INDEX_BITS | 1 << RANK_BITS;
    (index, rest.trailing_zeros() as u8 + 1)
}

/// Whether counting this element would change anything.
pub fn would_change(bytes: &[u8], element: &[u8]) -> Result<bool, Damage> {
    let (index, rank) = place_of(element);
    if bytes[4] == DENSE {
        return Ok(dense_get(bytes, index) < rank);
    }
    Ok(PlaceOfRun::find(bytes, index)?.run.value() < rank)
}

/// Counts an element; true if that changed a register. A sparse one that would become longer than `sparse_bytes_max` becomes dense.
pub fn add(bytes: &mut Vec<u8>, element: &[u8], sparse_bytes_max: usize) -> Result<bool, Damage> {
    let (index, rank) = place_of(element);
    raise(bytes, index, rank, sparse_bytes_max)
}

/// Raises a register; true if it was lower.
fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    rank: u8,
    sparse_bytes_max: usize,
) -> Result<bool, Damage> {
    if bytes[4] == DENSE {
        let is_raised = dense_get(bytes, index) < rank;
        if is_raised {
            dense_set(bytes, index, rank);
        }
        return Ok(is_raised);
    }
    sparse_raise(bytes, index, rank, sparse_bytes_max)
}

/// Marks the cached count as stale.
pub fn invalidate(bytes: &mut [u8]) {
    bytes[15] |= 0x80;
}

/// The cached count, unless it is stale.
pub fn cached_count(bytes: &[u8]) -> Option<u64> {
    let cached = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
    (cached >> 63 == 0).then_some(cached)
}

/// Stores the count.
pub fn set_cached_count(bytes: &mut [u8], count: u64) {
    bytes[8..16].copy_from_slice(&(count & !(1 << 63)).to_le_bytes());
}

/// All registers of several HyperLogLogs, the highest of each.
pub struct Registers(Vec<u8>);

impl Default for Registers {
    fn default() -> Self {
        Registers(vec![0; REGISTERS])
    }
}

impl Registers {
    /// Takes those of one more.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if bytes[4] == DENSE {
            for (index, register) in self.0.iter_mut().enumerate() {
                *register = (*register).max(dense_get(bytes, index));
            }
            return Ok(());
        }
        for_each_run(bytes, |first, len, value| {
            self.0[first..first + len]
                .iter_mut()
                .for_each(|register| *register = (*register).max(value));
        })
    }

    /// Raises the registers of `bytes` to these.
    pub fn store(&self, bytes: &mut Vec<u8>, sparse_bytes_max: usize) -> Result<(), Damage> {
        for (index, register) in self
            .0
            .iter()
            .enumerate()
            .filter(|(_, register)| **register > 0)
        {
            raise(bytes, index, *register, sparse_bytes_max)?;
        }
        Ok(())
    }

    /// Each of the 16384.
    pub fn values(&self) -> &[u8] {
        &self.0
    }

    /// The estimate.
    pub fn count(&self) -> u64 {
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        let mut histogram = [0u32; 64];
        self.0
            .iter()
            .for_each(|register| histogram[usize::from(*register & 63)] += 1);
        let m = REGISTERS as f64;
        let top = RANK_BITS as usize + 1;
        let mut z = m * tau((m - f64::from(histogram[top])) / m);
        for count in histogram[1..top].iter().rev() {
            z += f64::from(*count);
            z *= 0.5;
        }
        z += m * sigma(f64::from(histogram[0]) / m);
        (ALPHA * m * m / z).round() as u64
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

// Dense registers.

fn dense_get(bytes: &[u8], index: usize) -> u8 {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let high = bytes.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([bytes[at], high]) >> shift) as u8 & 63
}

fn dense_set(bytes: &mut [u8], index: usize, value: u8) {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let mask = 63u16 << shift;
    let high = bytes.get(at + 1).copied().unwrap_or(0);
    let word = u16::from_le_bytes([bytes[at], high]) & !mask | u16::from(value) << shift;
    bytes[at] = word as u8;
    if let Some(high) = bytes.get_mut(at + 1) {
        *high = (word >> 8) as u8;
    }
}

/// Makes a sparse HyperLogLog dense.
pub fn make_dense(bytes: &mut Vec<u8>) -> Result<(), Damage> {
    if bytes[4] == DENSE {
        return Ok(());
    }
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER].copy_from_slice(&bytes[..HEADER]);
    dense[4] = DENSE;
    for_each_run(bytes, |first, len, value| {
        if value > 0 {
            (first..first + len).for_each(|index| dense_set(&mut dense, index, value));
        }
    })?;
    *bytes = dense;
    Ok(())
}

/// The runs of a sparse HyperLogLog, as PFDEBUG DECODE shows them: `z:n` and `Z:n` for zeros, `v:value,n` for others.
pub fn describe_runs(bytes: &[u8]) -> Result<String, Damage> {
    let mut words = Vec::new();
    let mut rest = bytes.get(HEADER..).ok_or(Damage::NotOne)?;
    while !rest.is_empty() {
        let (run, len) = Run::read(rest).ok_or(Damage::Corrupt)?;
        words.push(match run {
            Run::Zeros(count) if len == 1 => format!("z:{count}"),
            Run::Zeros(count) => format!("Z:{count}"),
            Run::Values(value, count) => format!("v:{value},{count}"),
        });
        rest = &rest[len..];
    }
    Ok(words.join(" "))
}

/// Whether it is dense.
pub fn is_dense(bytes: &[u8]) -> bool {
    bytes[4] == DENSE
}

// Sparse registers.

/// A run of equal registers. The count is at least 1 and fits its form.
#[derive(Clone, Copy)]
enum Run {
    Zeros(usize),
    Values(u8, usize),
}

impl Run {
    /// Reads the run at the start of `bytes`, and says how many bytes it takes.
    fn read(bytes: &[u8]) -> Option<(Run, usize)> {
        let first = *bytes.first()?;
        match first >> 6 {
            0 => Some((Run::Zeros(usize::from(first) + 1), 1)),
            1 => Some((
                Run::Zeros((usize::from(first & 0x3F) << 8 | usize::from(*bytes.get(1)?)) + 1),
                2,
            )),
            _ => Some((
                Run::Values((first >> 2 & 0x1F) + 1, usize::from(first & 3) + 1),
                1,
            )),
        }
    }

    fn len(self) -> usize {
        match self {
            Run::Zeros(len) | Run::Values(_, len) => len,
        }
    }

    fn value(self) -> u8 {
        match self {
            Run::Zeros(_) => 0,
            Run::Values(value, _) => value,
        }
    }

    /// Appends the run, unless it is empty.
    fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Run::Zeros(0) | Run::Values(_, 0) => {}
            Run::Zeros(len @ 1..=ZERO_RUN_MAX) => out.push((len - 1) as u8),
            Run::Zeros(len) => out.extend_from_slice(&(0x4000 | (len - 1) as u16).to_be_bytes()),
            Run::Values(value, len) => out.push(0x80 | (value - 1) << 2 | (len - 1) as u8),
        }
    }
}

/// Calls `visit` with the first register, the length and the value of each run; all registers must be there.
fn for_each_run(bytes: &[u8], mut visit: impl FnMut(usize, usize, u8)) -> Result<(), Damage> {
    let (mut at, mut first) = (HEADER, 0);
    while at < bytes.len() {
        let (run, size) = Run::read(&bytes[at..]).ok_or(Damage::Corrupt)?;
        if first + run.len() > REGISTERS {
            return Err(Damage::Corrupt);
        }
        visit(first, run.len(), run.value());
        first += run.len();
        at += size;
    }
    if first == REGISTERS {
        Ok(())
    } else {
        Err(Damage::Corrupt)
    }
}

/// The run that holds a register, and where it is.
struct PlaceOfRun {
    run: Run,
    /// Its bytes.
    size: usize,
    /// Where they begin.
    at: usize,
    /// Its first register.
    first: usize,
    /// Where the run before it begins; the same place for the first.
    before: usize,
}

impl PlaceOfRun {
    fn find(bytes: &[u8], index: usize) -> Result<PlaceOfRun, Damage> {
        let (mut at, mut first, mut before) = (HEADER, 0, HEADER);
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (run, size) = Run::read(rest).ok_or(Damage::Corrupt)?;
            if index < first + run.len() {
                return Ok(PlaceOfRun {
                    run,
                    size,
                    at,
                    first,
                    before,
                });
            }
            first += run.len();
            before = at;
            at += size;
        }
    }
}

fn sparse_raise(
    bytes: &mut Vec<u8>,
    index: usize,
    rank: u8,
    sparse_bytes_max: usize,
) -> Result<bool, Damage> {
    if rank > SPARSE_VALUE_MAX {
        make_dense(bytes)?;
        return raise(bytes, index, rank, sparse_bytes_max);
    }
    let PlaceOfRun {
        run,
        size,
        at,
        first,
        before,
    } = PlaceOfRun::find(bytes, index)?;
    if run.value() >= rank {
        return Ok(false);
    }
    let (left, right) = (index - first, first + run.len() - 1 - index);
    let around = |len| match run {
        Run::Zeros(_) => Run::Zeros(len),
        Run::Values(value, _) => Run::Values(value, len),
    };
    let mut runs = Vec::with_capacity(8);
    around(left).append_to(&mut runs);
    Run::Values(rank, 1).append_to(&mut runs);
    around(right).append_to(&mut runs);
    if runs.len() > size && bytes.len() + runs.len() - size > sparse_bytes_max {
        make_dense(bytes)?;
        return raise(bytes, index, rank, sparse_bytes_max);
    }
    bytes.splice(at..at + size, runs);
    join_values(bytes, before);
    Ok(true)
}

/// Joins runs of equal values that fit into one, looking at five runs from `at` on.
fn join_values(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some((run, size)) = Run::read(bytes.get(at..).unwrap_or_default()) else {
            return;
        };
        let next = Run::read(&bytes[at + size..]);
        match (run, next) {
            (Run::Values(value, len), Some((Run::Values(other, more), _)))
                if value == other && len + more <= VALUE_RUN_MAX =>
            {
                let mut joined = Vec::with_capacity(1);
                Run::Values(value, len + more).append_to(&mut joined);
                bytes.splice(at..at + 2, joined);
            }
            _ => at += size,
        }
    }
}

/// MurmurHash64A (Austin Appleby, public domain), as little-endian machines compute it.
fn murmur64(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn estimate_is_near_the_truth() {
        let mut bytes = empty();
        for (many, n) in [100u32, 1000, 20_000, 100_000]
            .into_iter()
            .flat_map(|many| (0..many).map(move |n| (many, n)))
        {
            add(
                &mut bytes,
                format!("element {n}").as_bytes(),
                SPARSE_BYTES_MAX,
            )
            .unwrap();
            if n + 1 == many {
                let mut registers = Registers::default();
                registers.merge(&bytes).unwrap();
                let error = (registers.count() as f64 / f64::from(many) - 1.0).abs();
                assert!(error < 0.03, "{many}: {}", registers.count());
            }
        }
        assert!(is_dense(&bytes));
    }

    proptest! {
        #[test]
        fn sparse_and_dense_have_the_same_registers(elements in prop::collection::vec(any::<u32>(), 0..600)) {
            let (mut sparse, mut dense) = (empty(), empty());
            make_dense(&mut dense).unwrap();
            for element in elements {
                let element = element.to_string();
                let changes = would_change(&sparse, element.as_bytes());
                prop_assert_eq!(changes, would_change(&dense, element.as_bytes()));
                prop_assert_eq!(changes, add(&mut sparse, element.as_bytes(), SPARSE_BYTES_MAX));
                prop_assert_eq!(changes, add(&mut dense, element.as_bytes(), SPARSE_BYTES_MAX));
            }
            make_dense(&mut sparse).unwrap();
            prop_assert_eq!(sparse, dense);
        }

        #[test]
        fn any_sparse_bytes_give_an_answer_or_an_error(tail in prop::collection::vec(any::<u8>(), 0..40), element in any::<u8>()) {
            let mut bytes = empty();
            bytes.truncate(HEADER);
            bytes.extend(tail);
            let changes = would_change(&bytes, &[element]);
            if changes.is_ok() {
                prop_assert_eq!(changes, add(&mut bytes, &[element], SPARSE_BYTES_MAX));
            } else {
                let _ = add(&mut bytes, &[element], SPARSE_BYTES_MAX);
                let _ = Registers::default().merge(&bytes);
            }
        }
    }
}
