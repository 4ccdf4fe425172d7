//! Places on earth as 52-bit numbers, in the way of Redis, so that places near each other have numbers near each other.
//!
//! Bits of latitude and longitude alternate, the longitude first. Numbers are scores of sorted sets; a square of the map
//! at some step is one range of scores.

/// Longitudes and latitudes that can be stored.
pub const LONGITUDE_MAX: f64 = 180.0;
pub const LATITUDE_MAX: f64 = 85.051_128_78;
/// Bits of each coordinate.
const STEP_MAX: u32 = 26;
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub longitude: f64,
    pub latitude: f64,
}

impl Place {
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= LONGITUDE_MAX && self.latitude.abs() <= LATITUDE_MAX
    }

    /// The score that the place is stored under.
    pub fn score(self) -> u64 {
        let latitude = cell(self.latitude, LATITUDE_MAX, STEP_MAX);
        let longitude = cell(self.longitude, LONGITUDE_MAX, STEP_MAX);
        interleave(latitude, longitude)
    }

    /// The middle of what is stored under a score.
    pub fn from_score(score: f64) -> Place {
        let bits = score as u64;
        let middle = |number: u32, max: f64| {
            let (size, cells) = (2.0 * max, (1u64 << STEP_MAX) as f64);
            let low = -max + f64::from(number) / cells * size;
            let high = -max + (f64::from(number) + 1.0) / cells * size;
            ((low + high) / 2.0).clamp(-max, max)
        };
        Place {
            longitude: middle(even_bits(bits >> 1), LONGITUDE_MAX),
            latitude: middle(even_bits(bits), LATITUDE_MAX),
        }
    }

    /// The eleven letters of the usual geohash, whose latitudes go to the poles.
    pub fn text(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = interleave(
            cell(self.latitude, 90.0, STEP_MAX),
            cell(self.longitude, LONGITUDE_MAX, STEP_MAX),
        );
        // 52 bits make ten letters and two bits, which Redis leaves out.
        std::array::from_fn(|at| match at {
            10 => b'0',
            at => LETTERS[(bits >> (52 - (at + 1) * 5)) as usize & 31],
        })
    }

    /// Metres between two places on a sphere.
    pub fn distance_m(self, other: Place) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance_m(self.latitude, other.latitude);
        }
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((b - a) / 2.0).sin();
        2.0 * EARTH_RADIUS_M * (u * u + a.cos() * b.cos() * v * v).sqrt().asin()
    }
}

fn latitude_distance_m(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (b.to_radians() - a.to_radians()).abs()
}

/// What a search looks in.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Metres around the middle.
    Circle(f64),
    /// Metres from west to east and from south to north.
    Box(f64, f64),
}

impl Shape {
    /// The distance of a place from the middle, if it is inside.
    pub fn distance_m(self, middle: Place, place: Place) -> Option<f64> {
        let is_inside = match self {
            Shape::Circle(radius) => {
                return Some(middle.distance_m(place)).filter(|distance| *distance <= radius);
            }
            Shape::Box(width, height) => {
                let beside = Place {
                    longitude: middle.longitude,
                    latitude: place.latitude,
                };
                latitude_distance_m(place.latitude, middle.latitude) <= height / 2.0
                    && place.distance_m(beside) <= width / 2.0
            }
        };
        is_inside.then(|| middle.distance_m(place))
    }

    /// Ranges of scores that hold everything inside, in order and apart from each other.
    pub fn score_ranges(self, middle: Place) -> Ranges {
        let (half_width, half_height) = self.half_sizes();
        // A little more, so that rounding leaves nothing out.
        let margin = 1.0 + 1e-6;
        let up = (half_height / EARTH_RADIUS_M).to_degrees() * margin + 1e-9;
        let (south, north) = (middle.latitude - up, middle.latitude + up);
        let widest = south.abs().max(north.abs()).min(90.0);
        let reach = half_width / EARTH_RADIUS_M / 2.0;
        let sine =
            reach.min(std::f64::consts::FRAC_PI_2).sin() / widest.to_radians().cos().max(1e-12);
        let aside = if sine >= 1.0 {
            360.0
        } else {
            2.0 * sine.asin().to_degrees() * margin + 1e-9
        };
        let rows = (south.max(-LATITUDE_MAX), north.min(LATITUDE_MAX));
        let mut ranges = Ranges::default();
        if aside >= 180.0 {
            ranges.add_squares((-LONGITUDE_MAX, LONGITUDE_MAX), rows);
        } else {
            let (west, east) = (middle.longitude - aside, middle.longitude + aside);
            let span = (west.max(-LONGITUDE_MAX), east.min(LONGITUDE_MAX));
            ranges.add_squares(span, rows);
            // Over the date line: on one side of the map at most.
            if west < -LONGITUDE_MAX {
                ranges.add_squares((west + 360.0, LONGITUDE_MAX), rows);
            } else if east > LONGITUDE_MAX {
                ranges.add_squares((-LONGITUDE_MAX, east - 360.0), rows);
            }
        }
        ranges.joined()
    }
}

/// Squares of the map on each side of a search's part of it, or of one of its two parts.
const SIDE: usize = 3;
/// Two parts, if a search reaches over the date line.
const RANGES_MAX: usize = 2 * SIDE * SIDE;

/// Ranges of scores, the end outside: as many as one search looks through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranges {
    ranges: [(u64, u64); RANGES_MAX],
    len: usize,
}

impl std::ops::Deref for Ranges {
    type Target = [(u64, u64)];

    fn deref(&self) -> &[(u64, u64)] {
        &self.ranges[..self.len]
    }
}

impl Ranges {
    fn push(&mut self, range: (u64, u64)) {
        self.ranges[self.len] = range;
        self.len += 1;
    }

    /// The same ranges in order, with those that touch made one.
    pub fn joined(mut self) -> Ranges {
        self.ranges[..self.len].sort_unstable();
        let mut joined = Ranges::default();
        for &(from, to) in self.iter() {
            match joined.ranges[..joined.len].last_mut() {
                Some(before) if from <= before.1 => before.1 = before.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        joined
    }

    /// Adds the squares that cover a part of the map: the finest ones of which at most three by three are enough.
    fn add_squares(&mut self, (west, east): (f64, f64), (south, north): (f64, f64)) {
        let [left, right] = [west, east].map(|edge| cell(edge, LONGITUDE_MAX, STEP_MAX));
        let [bottom, top] = [south, north].map(|edge| cell(edge, LATITUDE_MAX, STEP_MAX));
        // Each step that is left out joins squares two by two.
        let span = |low: u32, high: u32, left_out: u32| (high >> left_out) - (low >> left_out);
        let is_enough = |left_out: &u32| {
            span(left, right, *left_out).max(span(bottom, top, *left_out)) < SIDE as u32
        };
        let left_out = (0..STEP_MAX).find(is_enough).unwrap_or(STEP_MAX);
        let shift = 2 * left_out;
        for longitude in left >> left_out..=right >> left_out {
            for latitude in bottom >> left_out..=top >> left_out {
                let bits = interleave(latitude, longitude);
                self.push((bits << shift, (bits + 1) << shift));
            }
        }
    }
}

impl Shape {
    /// Ranges of scores in the order in which Redis looks through them: the square of the middle, then those around it. It answers in that
    /// order when it is not told to sort. They may leave out what Redis does not find: see [`Shape::score_ranges`].
    pub fn ranges_as_redis(self, middle: Place) -> Ranges {
        let bounds = self.redis_bounds(middle);
        let mut step = self.redis_step(middle);
        let mut around = Around::of(middle, step);
        if step > 1 && !around.covers(&bounds) {
            step -= 1;
            around = Around::of(middle, step);
        }
        let (west, east) = around.longitudes(0);
        let (south, north) = around.latitudes(0);
        // Beside the middle's square there is nothing to find on the sides where that reaches over the edge.
        let is_useless = |aside: i64, up: i64| {
            step >= 2
                && (up < 0 && south < bounds.south
                    || up > 0 && north > bounds.north
                    || aside < 0 && west < bounds.west
                    || aside > 0 && east > bounds.east)
        };
        let mut ranges = Ranges::default();
        for (aside, up) in [
            (0, 0),
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
        ] {
            let range = around.range(aside, up);
            if !is_useless(aside, up) && !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        ranges
    }

    fn half_sizes(self) -> (f64, f64) {
        match self {
            Shape::Circle(radius) => (radius, radius),
            Shape::Box(width, height) => (width / 2.0, height / 2.0),
        }
    }

    fn redis_bounds(self, middle: Place) -> Bounds {
        let (half_width, half_height) = self.half_sizes();
        let up = (half_height / EARTH_RADIUS_M).to_degrees();
        let edge = if middle.latitude < 0.0 {
            middle.latitude - up
        } else {
            middle.latitude + up
        };
        let aside = (half_width / EARTH_RADIUS_M / edge.to_radians().cos()).to_degrees();
        Bounds {
            west: middle.longitude - aside,
            east: middle.longitude + aside,
            south: middle.latitude - up,
            north: middle.latitude + up,
        }
    }

    /// How finely Redis cuts the map for a search: the squares around the middle's should hold everything.
    fn redis_step(self, middle: Place) -> u32 {
        /// Half of the equator, in metres of the Mercator projection.
        const HALF_EQUATOR_M: f64 = 20_037_726.37;
        let mut reach = match self {
            Shape::Circle(radius) => radius,
            Shape::Box(..) => {
                let (half_width, half_height) = self.half_sizes();
                (half_width * half_width + half_height * half_height).sqrt()
            }
        };
        if reach == 0.0 {
            return STEP_MAX;
        }
        let mut step = 1;
        while reach < HALF_EQUATOR_M {
            reach *= 2.0;
            step += 1;
        }
        step -= match middle.latitude.abs() {
            latitude if latitude > 80.0 => 4,
            latitude if latitude > 66.0 => 3,
            _ => 2,
        };
        step.clamp(1, STEP_MAX as i32) as u32
    }
}

/// The part of the map that a search is about, in degrees.
struct Bounds {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// The square of a place and those around it. The map has no edges: what is east of the last one is the first.
struct Around {
    longitude: i64,
    latitude: i64,
    step: u32,
}

impl Around {
    fn of(middle: Place, step: u32) -> Around {
        Around {
            longitude: i64::from(cell(middle.longitude, LONGITUDE_MAX, step)),
            latitude: i64::from(cell(middle.latitude, LATITUDE_MAX, step)),
            step,
        }
    }

    fn wrapped(&self, number: i64) -> u32 {
        number.rem_euclid(1 << self.step) as u32
    }

    fn edges(&self, number: i64, max: f64) -> (f64, f64) {
        let (number, cells) = (f64::from(self.wrapped(number)), (1u64 << self.step) as f64);
        let size = 2.0 * max;
        (
            -max + number / cells * size,
            -max + (number + 1.0) / cells * size,
        )
    }

    fn longitudes(&self, aside: i64) -> (f64, f64) {
        self.edges(self.longitude + aside, LONGITUDE_MAX)
    }

    fn latitudes(&self, up: i64) -> (f64, f64) {
        self.edges(self.latitude + up, LATITUDE_MAX)
    }

    fn covers(&self, bounds: &Bounds) -> bool {
        self.latitudes(1).1 >= bounds.north
            && self.latitudes(-1).0 <= bounds.south
            && self.longitudes(1).1 >= bounds.east
            && self.longitudes(-1).0 <= bounds.west
    }

    fn range(&self, aside: i64, up: i64) -> (u64, u64) {
        let bits = interleave(
            self.wrapped(self.latitude + up),
            self.wrapped(self.longitude + aside),
        );
        let shift = 2 * (STEP_MAX - self.step);
        (bits << shift, (bits + 1) << shift)
    }
}

/// Which of 2^step parts of -max..max a coordinate is in.
fn cell(coordinate: f64, max: f64, step: u32) -> u32 {
    let cells = (1u64 << step) as f64;
    let number = (coordinate + max) / (2.0 * max) * cells;
    (number.max(0.0) as u64).min((1 << step) - 1) as u32
}

/// The bits of `even` at even places, those of `odd` at odd ones.
fn interleave(even: u32, odd: u32) -> u64 {
    spread(even) | spread(odd) << 1
}

fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The bits at even places: what [`spread`] took apart.
fn even_bits(number: u64) -> u32 {
    let mut bits = number & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scores_come_back(longitude in -180.0f64..180.0, latitude in -85.0f64..85.0) {
            let place = Place { longitude, latitude };
            let back = Place::from_score(place.score() as f64);
            prop_assert!(place.distance_m(back) < 1.0);
            prop_assert_eq!(back.score(), place.score());
        }

        #[test]
        fn ranges_hold_everything_inside(
            longitude in -180.0f64..180.0, latitude in -85.0f64..85.0,
            east in -3.0f64..3.0, north in -3.0f64..3.0, size in 1.0f64..9_000_000.0, is_box in any::<bool>(),
        ) {
            let middle = Place { longitude, latitude };
            let shape = if is_box { Shape::Box(size, size / 2.0) } else { Shape::Circle(size) };
            let degrees = size / 111_000.0;
            let place = Place {
                longitude: (longitude + east * degrees + 540.0).rem_euclid(360.0) - 180.0,
                latitude: (latitude + north * degrees).clamp(-85.0, 85.0),
            };
            let place = Place::from_score(place.score() as f64);
            if shape.distance_m(middle, place).is_some() {
                let score = place.score();
                let ranges = shape.score_ranges(middle);
                prop_assert!(ranges.iter().any(|(from, to)| (*from..*to).contains(&score)), "{:?} {:?}", place, ranges);
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
