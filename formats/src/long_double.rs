//! The 80-bit floating-point numbers that INCRBYFLOAT and HINCRBYFLOAT compute with.
//!
//! Redis uses the x87 type: a 64-bit mantissa, rounded to nearest, ties to even. Clients see its digits, so the sums are
//! done here in integers with the same rounding. Results are printed with 17 decimals, zeros cut.

use std::cmp::Ordering;

/// Longest text that Redis reads.
const TEXT_BYTES_MAX: usize = 5 * 1024;
/// Exponents (of two) beyond which a number is infinite or zero: those of the x87 type.
const EXPONENT_MAX: i32 = 16384;
const EXPONENT_MIN: i32 = -16445;
const DECIMALS: usize = 17;

/// A number of 64 significant bits: `mantissa * 2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDouble {
    /// A finite number. The mantissa is zero or has its top bit set.
    Finite {
        is_negative: bool,
        mantissa: u64,
        exponent: i32,
    },
    /// Above or below all numbers.
    Infinite { is_negative: bool },
}

impl LongDouble {
    /// Nothing.
    pub const ZERO: LongDouble = LongDouble::Finite {
        is_negative: false,
        mantissa: 0,
        exponent: 0,
    };

    /// Whether the number is not infinite.
    pub fn is_finite(self) -> bool {
        matches!(self, LongDouble::Finite { .. })
    }

    /// Reads what C's `strtold` reads as a whole, without leading blanks; not NaN, no overflow or underflow.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (is_negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::Infinite { is_negative });
        }
        let (radix, digits) = match digits {
            [b'0', b'x' | b'X', rest @ ..] => (16, rest),
            _ => (10, digits),
        };
        let (big, scale) = read_digits(digits, radix)?;
        if big.is_zero() {
            return Some(LongDouble::Finite {
                is_negative,
                mantissa: 0,
                exponent: 0,
            });
        }
        // Far outside the range there is nothing to compute: a decimal digit is worth 3.3 bits.
        let bits = match radix {
            16 => i64::from(scale),
            _ => i64::from(scale) * 10 / 3,
        } + i64::from(big.bits());
        if bits > i64::from(EXPONENT_MAX) + 1000 || bits < i64::from(EXPONENT_MIN) - 1000 {
            return None;
        }
        let number = match radix {
            16 => round(is_negative, &big, scale, false),
            _ if scale >= 0 => {
                let mut big = big;
                (0..scale).for_each(|_| big.mul_add(10, 0));
                round(is_negative, &big, 0, false)
            }
            _ => divide(is_negative, big, scale.unsigned_abs()),
        };
        match number {
            LongDouble::Finite { mantissa, .. } if mantissa > 0 => Some(number),
            _ => None,
        }
    }

    /// The sum, rounded; `None` if it is no number (opposite infinities).
    pub fn plus(self, other: LongDouble) -> Option<LongDouble> {
        use LongDouble::{Finite, Infinite};
        let (a, b) = match (self, other) {
            (Infinite { is_negative: a }, Infinite { is_negative: b }) => {
                return (a == b).then_some(self);
            }
            (Infinite { .. }, _) => return Some(self),
            (_, Infinite { .. }) => return Some(other),
            (Finite { mantissa: 0, .. }, b) => return Some(b),
            (a, Finite { mantissa: 0, .. }) => return Some(a),
            (a, b) => (a, b),
        };
        // Mantissas have their top bits set, so exponents decide which is larger.
        let (large, small) = match (a, b) {
            (
                Finite {
                    mantissa: m,
                    exponent: e,
                    ..
                },
                Finite {
                    mantissa: n,
                    exponent: f,
                    ..
                },
            ) if (e, m) < (f, n) => (b, a),
            _ => (a, b),
        };
        let (
            Finite {
                is_negative,
                mantissa,
                exponent,
            },
            Finite {
                is_negative: small_negative,
                mantissa: small,
                exponent: small_exponent,
            },
        ) = (large, small)
        else {
            unreachable!("both are finite")
        };
        // 62 bits below the larger mantissa; what the smaller one has below those only matters as not being zero.
        let shift = exponent.abs_diff(small_exponent);
        let wide = u128::from(small) << 62;
        let (moved, lost) = match shift {
            0..=127 => (wide >> shift, shift > 0 && wide << (128 - shift) != 0),
            _ => (0, true),
        };
        let base = u128::from(mantissa) << 62;
        let sum = if is_negative == small_negative {
            (base + moved) | u128::from(lost)
        } else {
            (base - moved - u128::from(lost)) | u128::from(lost)
        };
        if sum == 0 {
            return Some(LongDouble::ZERO);
        }
        Some(round(is_negative, &Big::from(sum), exponent - 62, false))
    }

    /// 17 decimals without trailing zeros, never an exponent. Only for finite numbers.
    pub fn to_text(self) -> String {
        let LongDouble::Finite {
            is_negative,
            mantissa,
            exponent,
        } = self
        else {
            unreachable!("infinite numbers are refused before they are printed")
        };
        let mut text = if exponent >= 0 {
            let mut big = Big::from(u128::from(mantissa));
            big.shift_left(exponent.unsigned_abs());
            big.to_decimal()
        } else {
            // Below 2^64 * 10^17 < 2^121.
            let scaled = u128::from(mantissa) * 10u128.pow(DECIMALS as u32);
            let shift = exponent.unsigned_abs();
            let rounded = if shift > 127 {
                0
            } else {
                let (kept, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
                let half = 1u128 << (shift - 1);
                kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
            };
            let unit = 10u128.pow(DECIMALS as u32);
            let text = format!("{}.{:0DECIMALS$}", rounded / unit, rounded % unit);
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        };
        if is_negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// Reads digits with an optional point and exponent: the digits as an integer, and the power of ten (or, for hex
/// digits, of two) that it is to be multiplied with.
fn read_digits(text: &[u8], radix: u32) -> Option<(Big, i32)> {
    let mut big = Big::default();
    let (mut scale, mut seen, mut in_fraction) = (0i32, false, false);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        match (*byte as char).to_digit(radix) {
            Some(digit) => {
                big.mul_add(radix, digit);
                seen = true;
                scale -= i32::from(in_fraction) * if radix == 16 { 4 } else { 1 };
            }
            None if *byte == b'.' && !in_fraction => in_fraction = true,
            None => break,
        }
        rest = tail;
    }
    let mark = if radix == 16 { b'p' } else { b'e' };
    match rest {
        _ if !seen => None,
        [] => Some((big, scale)),
        [byte, exponent @ ..] if byte.eq_ignore_ascii_case(&mark) => {
            let digits = exponent
                .strip_prefix(b"+")
                .or(exponent.strip_prefix(b"-"))
                .unwrap_or(exponent);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let size = digits.iter().fold(0i32, |sum, digit| {
                (sum * 10 + i32::from(digit - b'0')).min(100_000)
            });
            let exponent = if exponent.starts_with(b"-") {
                -size
            } else {
                size
            };
            Some((big, scale.saturating_add(exponent)))
        }
        _ => None,
    }
}

/// `number / 10^power`, rounded.
fn divide(is_negative: bool, number: Big, power: u32) -> LongDouble {
    let mut divisor = Big::from(1);
    (0..power).for_each(|_| divisor.mul_add(10, 0));
    // Shift so that the quotient has 65 or 66 bits; the remainder says whether there is more.
    let shift = 66 + divisor.bits() as i32 - number.bits() as i32;
    let (mut remainder, mut divisor) = (number, divisor);
    if shift >= 0 {
        remainder.shift_left(shift as u32);
    } else {
        divisor.shift_left(shift.unsigned_abs());
    }
    let mut quotient = 0u128;
    let steps = remainder.bits().saturating_sub(divisor.bits());
    divisor.shift_left(steps);
    for _ in 0..=steps {
        quotient <<= 1;
        if remainder.compare(&divisor) != Ordering::Less {
            remainder.subtract(&divisor);
            quotient |= 1;
        }
        divisor.halve();
    }
    round(
        is_negative,
        &Big::from(quotient),
        -shift,
        !remainder.is_zero(),
    )
}

/// `number * 2^exponent` with 64 bits; `more` says that the true number is a little larger.
fn round(is_negative: bool, number: &Big, exponent: i32, more: bool) -> LongDouble {
    let bits = number.bits() as i32;
    // Numbers near zero have fewer bits.
    let drop = (bits - 64).max(EXPONENT_MIN - exponent);
    let (kept, half, rest) = number.split(drop);
    let mut kept = kept;
    if half && (rest || more || kept & 1 == 1) {
        kept += 1;
    }
    if kept == 0 {
        return LongDouble::Finite {
            is_negative,
            mantissa: 0,
            exponent: 0,
        };
    }
    // Rounding up may have made 65 bits of 64, the lowest of them zero.
    let zeros = kept.leading_zeros() as i32 - 64;
    let (mantissa, exponent) = match zeros {
        -1 => ((kept >> 1) as u64, exponent + drop + 1),
        _ => ((kept << zeros) as u64, exponent + drop - zeros),
    };
    if exponent + 64 > EXPONENT_MAX {
        return LongDouble::Infinite { is_negative };
    }
    LongDouble::Finite {
        is_negative,
        mantissa,
        exponent,
    }
}

/// A natural number of any size: digits to base 2^32, lowest first, the last one not zero.
#[derive(Clone, Debug, Default)]
struct Big(Vec<u32>);

impl From<u128> for Big {
    fn from(number: u128) -> Big {
        let mut big = Big((0..4).map(|at| (number >> (32 * at)) as u32).collect());
        big.trim();
        big
    }
}

impl Big {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u32 {
        self.0
            .last()
            .map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn mul_add(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for digit in &mut self.0 {
            let product = u64::from(*digit) * u64::from(factor) + carry;
            *digit = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, by: u32) {
        if self.is_zero() {
            return;
        }
        let bits = by % 32;
        if bits > 0 {
            self.mul_add(1 << bits, 0);
        }
        self.0
            .splice(0..0, std::iter::repeat_n(0, by as usize / 32));
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for digit in self.0.iter_mut().rev() {
            let low = *digit & 1;
            *digit = *digit >> 1 | carry << 31;
            carry = low;
        }
        self.trim();
    }

    fn compare(&self, other: &Big) -> Ordering {
        self.0
            .len()
            .cmp(&other.0.len())
            .then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Subtracts a number that is not larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = 0;
        for (at, digit) in self.0.iter_mut().enumerate() {
            let take = i64::from(other.0.get(at).copied().unwrap_or(0)) + borrow;
            let left = i64::from(*digit) - take;
            borrow = i64::from(left < 0);
            *digit = left as u32;
        }
        self.trim();
    }

    fn bit(&self, at: u32) -> bool {
        self.0
            .get(at as usize / 32)
            .is_some_and(|digit| digit >> (at % 32) & 1 == 1)
    }

    /// The number without its lowest `drop` bits (at most 65 are left), the highest of those, and whether any other of
    /// them is set. A negative `drop` appends zeros.
    fn split(&self, drop: i32) -> (u128, bool, bool) {
        let bits = self.bits();
        if drop <= 0 {
            let kept = (0..bits)
                .rev()
                .fold(0u128, |kept, at| kept << 1 | u128::from(self.bit(at)));
            return (kept << drop.unsigned_abs(), false, false);
        }
        let drop = drop as u32;
        let kept = (drop..bits.max(drop))
            .rev()
            .fold(0u128, |kept, at| kept << 1 | u128::from(self.bit(at)));
        let half = self.bit(drop - 1);
        let rest = (0..drop - 1).any(|at| self.bit(at));
        (kept, half, rest)
    }

    fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.is_zero() {
            let mut carry = 0u64;
            for digit in rest.0.iter_mut().rev() {
                let both = carry << 32 | u64::from(*digit);
                *digit = (both / 1_000_000_000) as u32;
                carry = both % 1_000_000_000;
            }
            rest.trim();
            groups.push(carry);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups
            .iter()
            .rev()
            .for_each(|group| text.push_str(&format!("{group:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_digits_of_redis() {
        let rows = [
            ("0.1", "0.2", "0.3"),
            ("1.1", "2.2", "3.3"),
            ("0.3", "-0.1", "0.2"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "3.0e-5", "0.00003"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            ("1", "1e18", "1000000000000000001"),
            ("1", "1e19", "10000000000000000001"),
            ("1e30", "1", "1000000000000000000024696061952"),
            (
                "123456789.123456789",
                "0.000000001",
                "123456789.12345678999554366",
            ),
            (
                "1.23456789012345678901234567890",
                "0",
                "1.23456789012345679",
            ),
            ("0x1A", "1", "27"),
            ("5", "-5", "0"),
            ("-1.5", "1", "-0.5"),
            ("-0", "0", "0"),
        ];
        for (a, b, want) in rows {
            let sum = LongDouble::parse(a.as_bytes())
                .unwrap()
                .plus(LongDouble::parse(b.as_bytes()).unwrap());
            assert_eq!(sum.unwrap().to_text(), want, "{a} + {b}");
        }
    }

    #[test]
    fn only_whole_numbers_in_range_are_read() {
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "1e5000",
            "1e-5000",
            "1e99999999999",
            ".",
            "e5",
            "1e",
            "1.2.3",
            "0x",
            "--1",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["1e4000", "1e-4900", ".5", "5.", "+3", "0x.8p3", "0e99999"] {
            assert!(LongDouble::parse(text.as_bytes()).is_some(), "{text:?}");
        }
        let infinite = LongDouble::parse(b"inf").unwrap();
        assert!(!infinite.is_finite());
        assert_eq!(
            infinite.plus(LongDouble::parse(b"-Infinity").unwrap()),
            None
        );
    }
}
