//! Places: members of sorted sets whose scores are cells of a map.

use super::store::{Data, ZSet};
use super::table::Command;
use super::words::{Reader, count, float, is};
use super::zsets::{Flags, add_all};
use super::{Args, Done, NOT_FLOAT, Problem, Replay, SYNTAX, Stop};
use crate::geohash::{Place, Shape};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("GEOADD", -5, add),
    Command::run("GEORADIUS", -6, radius),
    Command::run("GEORADIUSBYMEMBER", -5, radius_by_member),
    Command::run("GEOSEARCHSTORE", -8, search_store),
];

fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, Stop> {
    let place = Place {
        longitude: float(longitude)?,
        latitude: float(latitude)?,
    };
    match place.is_valid() {
        true => Ok(place),
        false => Err(Stop::Refused("a place beyond the map")),
    }
}

fn add(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut flags = Flags::default();
    let mut words = Reader::new(&args[2..]);
    loop {
        if words.skip("NX") {
            flags.nx = true;
        } else if words.skip("XX") {
            flags.xx = true;
        } else if !words.skip("CH") {
            break;
        }
    }
    let places = words.left().chunks_exact(3);
    if !places.remainder().is_empty() || flags.nx && flags.xx {
        return Err(SYNTAX);
    }
    let mut pairs = Vec::new();
    for words in places {
        let score = place(words[0], words[1])?.score().to_string();
        pairs.push((score.into_bytes(), words[2]));
    }
    let words: Vec<&[u8]> = pairs
        .iter()
        .flat_map(|(score, member)| [&score[..], member])
        .collect();
    add_all(replay, args[1], &words, flags)
}

/// What a search that stores its result looks for.
#[derive(Default)]
struct Search<'a> {
    middle: Option<Place>,
    /// In metres.
    shape: Option<Shape>,
    /// Metres of the unit that distances are stored in.
    unit_m: f64,
    most: Option<usize>,
    /// Any places will do, not only the nearest.
    any: bool,
    is_descending: Option<bool>,
    /// Distances are stored, not places.
    by_distance: bool,
    target: Option<&'a [u8]>,
    shows: bool,
}

fn unit_m(word: &[u8]) -> Result<f64, Stop> {
    let units = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];
    let unit = units.into_iter().find(|(name, _)| is(word, name));
    unit.map(|(_, metres)| metres)
        .ok_or(Stop::Refused("no unit of length"))
}

fn length(word: &[u8]) -> Result<f64, Stop> {
    let length = float(word).map_err(|_| NOT_FLOAT)?;
    match length < 0.0 {
        true => Err(Stop::Refused("a length below 0")),
        false => Ok(length),
    }
}

fn place_of(replay: &mut Replay, key: &[u8], member: &[u8]) -> Result<Option<Place>, Stop> {
    let Some(zset) = replay.get(key, Data::zset)? else {
        return Ok(None);
    };
    let score = zset.score(member).ok_or(Stop::Refused("no such member"))?;
    Ok(Some(Place::from_score(score)))
}

impl<'a> Search<'a> {
    fn circle(&mut self, radius: &[u8], unit: &[u8]) -> Done {
        self.unit_m = unit_m(unit)?;
        self.shape = Some(Shape::Circle(length(radius)? * self.unit_m));
        Ok(())
    }

    /// Options that all searches share. False: the next word is another one.
    fn take(&mut self, words: &mut Reader<'a>) -> Result<bool, Stop> {
        if words.skip("WITHCOORD") || words.skip("WITHDIST") || words.skip("WITHHASH") {
            self.shows = true;
        } else if words.skip("ASC") {
            self.is_descending = Some(false);
        } else if words.skip("DESC") {
            self.is_descending = Some(true);
        } else if words.skip("COUNT") {
            let most = count(words.next()?)?;
            if most == 0 {
                return Err(Stop::Refused("a count that is not above 0"));
            }
            self.most = Some(most);
            self.any = words.skip("ANY");
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn store(self, replay: &mut Replay, source: &[u8]) -> Done {
        let Some(target) = self.target else {
            return Ok(());
        };
        if self.shows {
            return Err(SYNTAX);
        }
        let mut found: Vec<(Vec<u8>, f64, f64)> = Vec::new();
        if let Some(zset) = replay.get(source, Data::zset)? {
            let (Some(middle), Some(shape)) = (self.middle, self.shape) else {
                return Err(SYNTAX);
            };
            for &(from, to) in shape.score_ranges(middle).iter() {
                let cells = zset
                    .iter_from(from as f64)
                    .take_while(|(_, score)| *score < to as f64);
                found.extend(cells.filter_map(|(member, score)| {
                    let distance_m = shape.distance_m(middle, Place::from_score(score))?;
                    Some((member.to_vec(), score, distance_m))
                }));
            }
        }
        if let Some(most) = self.most.filter(|most| found.len() > *most) {
            if self.any && self.is_descending.is_none() {
                let why = "takes any places, whichever the server finds first";
                return Err(Stop::Failed(Problem::Undetermined(why)));
            }
            let is_descending = self.is_descending == Some(true);
            found.sort_by(|a, b| match is_descending {
                true => b.2.total_cmp(&a.2),
                false => a.2.total_cmp(&b.2),
            });
            // Fewer are sorted by insertion, which keeps the order of those that are equally far.
            if found.len() >= SHUFFLED_LEN_MIN && found[most - 1].2 == found[most].2 {
                let why = "takes some of several places that are equally far";
                return Err(Stop::Failed(Problem::Undetermined(why)));
            }
            found.truncate(most);
        }
        let scores = found.iter().map(|(member, score, distance_m)| {
            let score = match self.by_distance {
                true => distance_m / self.unit_m,
                false => *score,
            };
            (&member[..], score)
        });
        let zset: ZSet = scores.collect();
        replay.put(target, Data::ZSet(zset));
        Ok(())
    }
}

/// From so many elements on, a server's sort mixes equal ones.
const SHUFFLED_LEN_MIN: usize = 7;

fn radius_options<'a>(mut search: Search<'a>, words: Args<'a>) -> Result<Search<'a>, Stop> {
    let mut words = Reader::new(words);
    while !words.is_empty() {
        if search.take(&mut words)? {
            continue;
        }
        search.by_distance = match words.next()? {
            word if is(word, "STORE") => false,
            word if is(word, "STOREDIST") => true,
            _ => return Err(SYNTAX),
        };
        search.target = Some(words.next()?);
    }
    Ok(search)
}

fn radius(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut search = Search {
        middle: Some(place(args[2], args[3])?),
        ..Search::default()
    };
    search.circle(args[4], args[5])?;
    radius_options(search, &args[6..])?.store(replay, args[1])
}

fn radius_by_member(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut search = Search {
        middle: place_of(replay, args[1], args[2])?,
        ..Search::default()
    };
    search.circle(args[3], args[4])?;
    radius_options(search, &args[5..])?.store(replay, args[1])
}

fn search_store(replay: &mut Replay, args: Args<'_>) -> Done {
    let (target, source) = (args[1], args[2]);
    let mut search = Search {
        target: Some(target),
        ..Search::default()
    };
    let mut words = Reader::new(&args[3..]);
    let (mut froms, mut shapes) = (0, 0);
    while !words.is_empty() {
        if search.take(&mut words)? {
            continue;
        }
        if words.skip("FROMMEMBER") {
            froms += 1;
            search.middle = place_of(replay, source, words.next()?)?;
        } else if words.skip("FROMLONLAT") {
            froms += 1;
            search.middle = Some(place(words.next()?, words.next()?)?);
        } else if words.skip("BYRADIUS") {
            shapes += 1;
            search.circle(words.next()?, words.next()?)?;
        } else if words.skip("BYBOX") {
            shapes += 1;
            let (width, height) = (length(words.next()?)?, length(words.next()?)?);
            search.unit_m = unit_m(words.next()?)?;
            search.shape = Some(Shape::Box(width * search.unit_m, height * search.unit_m));
        } else if words.skip("STOREDIST") {
            search.by_distance = true;
        } else {
            return Err(SYNTAX);
        }
    }
    if froms != 1 || shapes != 1 {
        return Err(SYNTAX);
    }
    search.store(replay, source)
}
