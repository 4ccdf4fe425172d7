//! Places in sorted sets.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::{Protocol, Reply};

use super::collection::{bulk, peek, read};
use super::words::{float, int, is};
use super::zset_ranges::store;
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::zset::ZSet;
use dfsnap_formats::geohash::{Place, Shape};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("geoadd", -5, Flags::WRITE_OOM, KeySpec::ONE, geoadd)
        .about(Group::Geo, "3.2.0", "Adds places, or moves them."),
    Command::keyed("geodist", -4, Flags::READONLY, KeySpec::ONE, geodist)
        .about(Group::Geo, "3.2.0", "The distance between two places."),
    Command::keyed("geohash", -2, Flags::READONLY, KeySpec::ONE, geohash)
        .about(Group::Geo, "3.2.0", "Places as geohash text."),
    Command::keyed("geopos", -2, Flags::READONLY, KeySpec::ONE, geopos)
        .about(Group::Geo, "3.2.0", "Longitude and latitude of places."),
    Command::keyed("georadius", -6, Flags::WRITE_OOM.with(Flags::MOVABLEKEYS), KeySpec::Custom(radius_keys), georadius)
        .about(Group::Geo, "3.2.0", "Places around a point."),
    Command::keyed("georadius_ro", -6, Flags::READONLY, KeySpec::ONE, georadius)
        .about(Group::Geo, "3.2.10", "Places around a point, never stored."),
    Command::keyed("georadiusbymember", -5, Flags::WRITE_OOM.with(Flags::MOVABLEKEYS), KeySpec::Custom(radius_keys), georadius)
        .about(Group::Geo, "3.2.0", "Places around another place."),
    Command::keyed("georadiusbymember_ro", -5, Flags::READONLY, KeySpec::ONE, georadius)
        .about(Group::Geo, "3.2.10", "Places around another place, never stored."),
    Command::keyed("geosearch", -7, Flags::READONLY, KeySpec::ONE, geosearch)
        .about(Group::Geo, "6.2.0", "Places in a circle or a box."),
    Command::keyed("geosearchstore", -8, Flags::WRITE_OOM, KeySpec::TWO, geosearchstore)
        .about(Group::Geo, "6.2.0", "Stores the places in a circle or a box."),
];

fn radius_keys(args: Args<'_>, positions: &mut Vec<usize>) {
    positions.push(1);
    let has_store = |at: &usize| is(args[*at], "store") || is(args[*at], "storedist");
    let options = if is(args[0], "georadius") { 6 } else { 5 };
    positions.extend(
        (options..args.len().saturating_sub(1))
            .rfind(has_store)
            .map(|at| at + 1),
    );
}

/// Metres of a unit.
fn unit_m(word: &[u8]) -> Result<f64, CommandError> {
    [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)]
        .into_iter()
        .find(|(name, _)| is(word, name))
        .map(|(_, metres)| metres)
        .ok_or(CommandError::text(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        ))
}

fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CommandError> {
    let place = Place {
        longitude: float(longitude)?,
        latitude: float(latitude)?,
    };
    if place.is_valid() {
        return Ok(place);
    }
    let text = format!(
        "invalid longitude,latitude pair {:.6},{:.6}",
        place.longitude, place.latitude
    );
    Err(CommandError::new(text))
}

fn geoadd(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = args[2..]
        .iter()
        .take_while(|word| ["nx", "xx", "ch"].iter().any(|name| is(word, name)))
        .count();
    let (options, places) = args[2..].split_at(options);
    let has = |name| options.iter().any(|word| is(word, name));
    if !places.len().is_multiple_of(3) || (has("nx") && has("xx")) {
        return Err(CommandError::SYNTAX);
    }
    let mut words: Vec<Vec<u8>> = vec![b"zadd".to_vec(), args[1].to_vec()];
    words.extend(options.iter().map(|word| word.to_vec()));
    for triple in places.chunks_exact(3) {
        words.push(
            place(triple[0], triple[1])?
                .score()
                .to_string()
                .into_bytes(),
        );
        words.push(triple[2].to_vec());
    }
    let borrowed: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let effect = super::zsets::zadd(exec, &borrowed)?;
    Ok(if effect.is_none() {
        Effect::None
    } else {
        Effect::Commands(vec![words])
    })
}

fn place_of(set: Option<&ZSet>, member: &[u8]) -> Option<Place> {
    set.and_then(|set| set.score(member)).map(Place::from_score)
}

fn distance_text(metres: f64, unit_m: f64) -> Vec<u8> {
    format!("{:.4}", metres / unit_m).into_bytes()
}

fn geodist(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let unit_m = match &args[4..] {
        [] => 1.0,
        [word] => unit_m(word)?,
        _ => return Err(CommandError::SYNTAX),
    };
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    match place_of(set, args[2]).zip(place_of(set, args[3])) {
        Some((a, b)) => reply.bulk(&distance_text(a.distance_m(b), unit_m)),
        None => reply.null(),
    }
    Ok(Effect::None)
}

fn geohash(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    reply.array(args.len() - 2);
    for member in &args[2..] {
        match place_of(set, member) {
            Some(place) => reply.bulk(&place.text()),
            None => reply.null(),
        }
    }
    Ok(Effect::None)
}

fn geopos(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    reply.array(args.len() - 2);
    for member in &args[2..] {
        match place_of(set, member) {
            Some(place) => reply_place(reply, place),
            None => reply.null_array(),
        }
    }
    Ok(Effect::None)
}

/// Longitude and latitude with all digits that they have, up to seventeen decimals.
fn reply_place(reply: &mut Reply, place: Place) {
    reply.array(2);
    for coordinate in [place.longitude, place.latitude] {
        let text = format!("{coordinate:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        match reply.protocol() {
            Protocol::Resp2 => reply.bulk(text.as_bytes()),
            Protocol::Resp3 => reply.raw(format!(",{text}\r\n").as_bytes()),
        }
    }
}

// Searching.

/// Where a search begins.
#[derive(Clone, Copy)]
enum Middle {
    At(Place),
    /// Where a member is; `None` in a set that is not there.
    Member(Option<Place>),
}

struct Search<'a> {
    middle: Option<Middle>,
    shape: Option<Shape>,
    unit_m: f64,
    count: usize,
    any: bool,
    /// Whether to put the nearest first, or the farthest.
    is_ascending: Option<bool>,
    with_coordinates: bool,
    with_distance: bool,
    with_hash: bool,
    store: Option<&'a [u8]>,
    stores_distance: bool,
}

/// Scores between which no member stands, as the last look into the set has shown. Where little is found, most of a search's squares
/// lie in there, and need no look of their own.
struct Empty {
    after: f64,
    until: f64,
}

impl Default for Empty {
    fn default() -> Empty {
        Empty {
            after: f64::INFINITY,
            until: f64::NEG_INFINITY,
        }
    }
}

impl Empty {
    /// The members in a range of scores.
    fn members<'s>(
        &mut self,
        set: &'s ZSet,
        (from, to): (u64, u64),
    ) -> impl Iterator<Item = (Element<'s>, f64)> + use<'s> {
        let (from, to) = (from as f64, to as f64);
        let is_within = self.after < from && to <= self.until;
        let rest = (!is_within).then(|| {
            let gap = set.seek(from);
            (self.after, self.until) = (gap.before, gap.behind);
            gap.rest
        });
        let rest = rest.into_iter().flatten();
        rest.take_while(move |(_, score)| *score < to)
    }
}

/// A place that was found.
struct Found<'a> {
    member: Element<'a>,
    score: f64,
    place: Place,
    distance_m: f64,
}

impl<'a> Search<'a> {
    fn new() -> Search<'a> {
        Search {
            middle: None,
            shape: None,
            unit_m: 1.0,
            count: usize::MAX,
            any: false,
            is_ascending: None,
            with_coordinates: false,
            with_distance: false,
            with_hash: false,
            store: None,
            stores_distance: false,
        }
    }

    /// Looks around a member, which must be there if its set is.
    fn around(&mut self, set: Option<&ZSet>, member: &[u8]) -> Result<(), CommandError> {
        let place = place_of(set, member);
        if set.is_some() && place.is_none() {
            return Err(CommandError::text(
                "ERR could not decode requested zset member",
            ));
        }
        self.middle = Some(Middle::Member(place));
        Ok(())
    }

    fn radius(&mut self, radius: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let radius = float(radius).map_err(|_| CommandError::text("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(CommandError::text("ERR radius cannot be negative"));
        }
        self.unit_m = unit_m(unit)?;
        self.shape = Some(Shape::Circle(radius * self.unit_m));
        Ok(())
    }

    fn rectangle(&mut self, width: &[u8], height: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let width = float(width).map_err(|_| CommandError::text("ERR need numeric width"))?;
        let height = float(height).map_err(|_| CommandError::text("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::text("ERR height or width cannot be negative"));
        }
        self.unit_m = unit_m(unit)?;
        self.shape = Some(Shape::Box(width * self.unit_m, height * self.unit_m));
        Ok(())
    }

    /// Reads the options, from the first to the last: of two mistakes the first is told. GEORADIUS has STORE, GEOSEARCH has the middle
    /// and the shape among them; each may be given again in the same way, and the last one counts.
    fn options(
        &mut self,
        set: Option<&ZSet>,
        mut words: Args<'a>,
        is_search: bool,
        stores: bool,
        name: &[u8],
    ) -> Result<(), CommandError> {
        let name = String::from_utf8_lossy(name);
        let mut has_count = false;
        loop {
            words = match words {
                [] => break,
                [word, rest @ ..] if is(word, "withdist") => {
                    self.with_distance = true;
                    rest
                }
                [word, rest @ ..] if is(word, "withhash") => {
                    self.with_hash = true;
                    rest
                }
                [word, rest @ ..] if is(word, "withcoord") => {
                    self.with_coordinates = true;
                    rest
                }
                [word, rest @ ..] if is(word, "any") => {
                    self.any = true;
                    rest
                }
                [word, rest @ ..] if is(word, "asc") || is(word, "desc") => {
                    self.is_ascending = Some(is(word, "asc"));
                    rest
                }
                [word, number, rest @ ..] if is(word, "count") => {
                    let number = int(number)?;
                    let count = usize::try_from(number).ok().filter(|count| *count > 0);
                    self.count = count.ok_or(CommandError::text("ERR COUNT must be > 0"))?;
                    has_count = true;
                    rest
                }
                [word, key, rest @ ..]
                    if !is_search && stores && (is(word, "store") || is(word, "storedist")) =>
                {
                    (self.store, self.stores_distance) = (Some(*key), is(word, "storedist"));
                    rest
                }
                [word, rest @ ..] if is_search && stores && is(word, "storedist") => {
                    self.stores_distance = true;
                    rest
                }
                [word, member, rest @ ..]
                    if is_search
                        && is(word, "frommember")
                        && !matches!(self.middle, Some(Middle::At(_))) =>
                {
                    self.around(set, member)?;
                    rest
                }
                [word, longitude, latitude, rest @ ..]
                    if is_search
                        && is(word, "fromlonlat")
                        && !matches!(self.middle, Some(Middle::Member(_))) =>
                {
                    self.middle = Some(Middle::At(place(longitude, latitude)?));
                    rest
                }
                [word, radius, unit, rest @ ..]
                    if is_search
                        && is(word, "byradius")
                        && !matches!(self.shape, Some(Shape::Box(..))) =>
                {
                    self.radius(radius, unit)?;
                    rest
                }
                [word, width, height, unit, rest @ ..]
                    if is_search
                        && is(word, "bybox")
                        && !matches!(self.shape, Some(Shape::Circle(_))) =>
                {
                    self.rectangle(width, height, unit)?;
                    rest
                }
                _ => return Err(CommandError::SYNTAX),
            };
        }
        let replies = self.with_distance || self.with_hash || self.with_coordinates;
        if replies && self.store.is_some() {
            let what = if is_search {
                "GEOSEARCHSTORE"
            } else {
                "STORE option in GEORADIUS"
            };
            return Err(CommandError::new(format!(
                "{what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if self.middle.is_none() {
            return Err(CommandError::new(format!(
                "exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}"
            )));
        }
        if self.shape.is_none() {
            return Err(CommandError::new(format!(
                "exactly one of BYRADIUS and BYBOX can be specified for {name}"
            )));
        }
        if self.any && !has_count {
            return Err(CommandError::text(
                "ERR the ANY argument requires COUNT argument",
            ));
        }
        if has_count && !self.any && self.is_ascending.is_none() {
            self.is_ascending = Some(true);
        }
        Ok(())
    }

    fn run<'s>(&self, set: &'s ZSet) -> Vec<Found<'s>> {
        let mut found = Vec::new();
        self.look(set, &mut found);
        if let Some(is_ascending) = self.is_ascending {
            found.sort_by(|a, b| {
                let order = a.distance_m.total_cmp(&b.distance_m);
                if is_ascending { order } else { order.reverse() }
            });
        }
        found.truncate(self.count);
        found
    }

    /// Finds what is in the shape: all of it, or with ANY as much as is asked for. First it looks as Redis does, so that the order is the
    /// same, then for what Redis may have left out near poles and the date line.
    fn look<'s>(&self, set: &'s ZSet, found: &mut Vec<Found<'s>>) {
        let (Some(Middle::At(middle)) | Some(Middle::Member(Some(middle)))) = self.middle else {
            unreachable!("checked with the options: the set is there")
        };
        let shape = self.shape.expect("checked with the options");
        let first = shape.ranges_as_redis(middle);
        let mut empty = Empty::default();
        let mut look = |range: (u64, u64), is_known: &dyn Fn(u64) -> bool| {
            for (member, score) in empty.members(set, range) {
                if is_known(score as u64) {
                    continue;
                }
                let place = Place::from_score(score);
                let Some(distance_m) = shape.distance_m(middle, place) else {
                    continue;
                };
                found.push(Found {
                    member,
                    score,
                    place,
                    distance_m,
                });
                if self.any && found.len() >= self.count {
                    return false;
                }
            }
            true
        };
        if !first.iter().all(|range| look(*range, &|_| false)) {
            return;
        }
        let covered = first.joined();
        let is_known = |score| first.iter().any(|(from, to)| (*from..*to).contains(&score));
        for &(from, to) in shape.score_ranges(middle).iter() {
            let is_covered = |range: &(u64, u64)| range.0 <= from && to <= range.1;
            if !covered.iter().any(is_covered) && !look((from, to), &is_known) {
                return;
            }
        }
    }

    fn reply(&self, reply: &mut Reply, found: &[Found<'_>]) {
        let extras = usize::from(self.with_distance)
            + usize::from(self.with_hash)
            + usize::from(self.with_coordinates);
        reply.array(found.len());
        for found in found {
            if extras > 0 {
                reply.array(1 + extras);
            }
            bulk(reply, found.member);
            if self.with_distance {
                reply.bulk(&distance_text(found.distance_m, self.unit_m));
            }
            if self.with_hash {
                reply.int(found.score as i64);
            }
            if self.with_coordinates {
                reply_place(reply, found.place);
            }
        }
    }

    /// Runs the search on what `key` holds, and replies or stores the result.
    fn answer(&self, exec: &mut Exec<'_>, key: &[u8]) -> CommandResult {
        let limits = &exec.settings.limits;
        let (set, reply) = read::<ZSet>(exec, key)?;
        let found = match set {
            Some(set) => self.run(set),
            None => Vec::new(),
        };
        let Some(destination) = self.store else {
            self.reply(reply, &found);
            return Ok(Effect::None);
        };
        let has_found = !found.is_empty();
        let mut result = ZSet::new();
        for found in &found {
            let score = if self.stores_distance {
                found.distance_m / self.unit_m
            } else {
                found.score
            };
            result.insert(found.member.text(&mut itoa::Buffer::new()), score, limits);
        }
        // Which places ANY finds is each server's own affair: then replicas get the result.
        let words = (self.any && has_found).then(|| {
            let mut words = vec![b"ZADD".to_vec(), destination.to_vec()];
            for (member, score) in result.iter() {
                words.push(
                    dfsnap_formats::double::DoubleText::score(score)
                        .as_bytes()
                        .to_vec(),
                );
                words.push(Element::to_vec(member));
            }
            vec![vec![b"DEL".to_vec(), destination.to_vec()], words]
        });
        let effect = store(exec, destination, result)?;
        Ok(words.map_or(effect, Effect::Commands))
    }
}

/// GEORADIUS and GEORADIUSBYMEMBER, with and without `_RO`.
fn georadius(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let set = peek::<ZSet>(exec, args[1])?;
    let is_by_member = args[0].len() >= 17;
    let mut search = Search::new();
    let options = if is_by_member {
        search.around(set, args[2])?;
        // Around a member that is not there any distance will do.
        if set.is_none() {
            search.radius(b"0", b"m")?;
        } else {
            search.radius(args[3], args[4])?;
        }
        &args[5..]
    } else {
        search.middle = Some(Middle::At(place(args[2], args[3])?));
        search.radius(args[4], args[5])?;
        &args[6..]
    };
    let stores = !args[0].to_ascii_lowercase().ends_with(b"_ro");
    search.options(set, options, false, stores, args[0])?;
    search.answer(exec, args[1])
}

fn geosearch(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let set = peek::<ZSet>(exec, args[1])?;
    let mut search = Search::new();
    search.options(set, &args[2..], true, false, args[0])?;
    search.answer(exec, args[1])
}

fn geosearchstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let set = peek::<ZSet>(exec, args[2])?;
    let mut search = Search::new();
    search.store = Some(args[1]);
    search.options(set, &args[3..], true, true, args[0])?;
    search.answer(exec, args[2])
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET s v
            GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
            GEOADD g 13.361389 38.115556 Palermo
            GEOADD g CH 13.4 38.1 Palermo 12.5 41.9 Rome
            GEOADD g NX 1 1 Palermo
            GEOADD g XX 1 1 Nowhere
            GEOADD g NX XX 1 1 x
            GEOADD g 200 0 x
            GEOADD g 0 86 x
            GEOADD g x 0 x
            GEOADD g 1 2
            GEOADD g 1 2 3 4
            GEOADD s 1 1 x
            GEOADD w 179.9 0 east -179.9 0.1 west 0 85 north 0 0 zero 100 -85 south
            GEODIST g Palermo Catania
            GEODIST g Palermo Catania km
            GEODIST g Palermo Catania mi
            GEODIST g Palermo Catania FT
            GEODIST g Palermo Catania foo
            GEODIST g Palermo none
            GEODIST none a b
            GEODIST g Palermo Palermo
            GEOHASH g Palermo Catania none
            GEOHASH none a
            GEOHASH w north south zero east
            GEOPOS g Palermo none Catania
            GEOPOS none a
            GEOPOS w zero north
            ZRANGE g 0 -1 WITHSCORES
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km DESC WITHDIST WITHCOORD WITHHASH
            GEOSEARCH g FROMMEMBER Palermo BYRADIUS 500 km ASC COUNT 2
            GEOSEARCH g FROMMEMBER Palermo BYRADIUS 500 km COUNT 1
            GEOSEARCH g FROMMEMBER none BYRADIUS 500 km
            GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHDIST
            GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 200 km ASC WITHDIST
            GEOSEARCH w FROMLONLAT -180 0 BYBOX 100 100 km ASC WITHDIST
            GEOSEARCH w FROMLONLAT 0 85 BYRADIUS 10 m ASC WITHDIST
            GEOSEARCH w FROMLONLAT 10 10 BYRADIUS 25000 km ASC WITHDIST
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS -1 km
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS x km
            GEOSEARCH g FROMLONLAT 15 37 BYBOX 1 -1 km
            GEOSEARCH g FROMLONLAT 15 37 BYBOX x 1 km
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 1 foo
            GEOSEARCH g FROMLONLAT 15 37 ASC COUNT 1
            GEOSEARCH g BYRADIUS 1 km ASC COUNT 1
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 1 km ANY
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 1 km COUNT 0
            GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 1 km FOO
            GEOSEARCH g FROMLONLAT 200 37 BYRADIUS 1 km
            GEOSEARCH none FROMLONLAT 15 37 BYRADIUS 1 km
            GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 1 km
            GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km
            ZRANGE d 0 -1
            GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 300 km COUNT 1
            ZRANGE d 0 -1
            GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST
            ZRANGE d 0 -1
            GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km WITHDIST
            GEOSEARCHSTORE d g FROMMEMBER none BYRADIUS 1 km WITHDIST
            GEOSEARCHSTORE d g WITHDIST FROMMEMBER none BYRADIUS x km
            GEOSEARCHSTORE d g FROMMEMBER Palermo BYRADIUS x km FROMMEMBER none
            GEOSEARCHSTORE d g FROMMEMBER none FOO
            GEOSEARCHSTORE d g FOO FROMMEMBER none
            GEOSEARCHSTORE d none FROMMEMBER none FOO
            GEOSEARCHSTORE d g FROMMEMBER Palermo FROMLONLAT 15 37 BYRADIUS 1 km
            GEOSEARCHSTORE d g FROMLONLAT 15 37 FROMMEMBER Palermo BYRADIUS 1 km
            GEOSEARCHSTORE d g FROMMEMBER Palermo FROMMEMBER Catania BYRADIUS 1 km
            ZRANGE d 0 -1
            GEOSEARCHSTORE d g FROMMEMBER Palermo BYRADIUS 1 km BYRADIUS 500 km
            ZRANGE d 0 -1
            GEOSEARCHSTORE d g FROMMEMBER Palermo BYRADIUS 1 km BYBOX 1 1 km
            GEOSEARCH g FROMLONLAT 0 0 FROMLONLAT 15 37 BYBOX 1 1 m BYBOX 400 400 km ASC
            GEORADIUSBYMEMBER g none x km FOO
            GEORADIUSBYMEMBER g Palermo x km FOO
            GEOSEARCHSTORE d none FROMLONLAT 15 37 BYRADIUS 200 km
            EXISTS d
            GEORADIUS g 15 37 200 km ASC WITHDIST
            GEORADIUS g 15 37 200 km ASC STORE d
            ZRANGE d 0 -1
            GEORADIUS g 15 37 200 km STORE d WITHDIST
            GEORADIUS_RO g 15 37 200 km ASC
            GEORADIUS_RO g 15 37 200 km STORE d
            GEORADIUSBYMEMBER g Palermo 300 km ASC WITHCOORD
            GEORADIUSBYMEMBER_RO g Palermo 300 km DESC
            GEORADIUSBYMEMBER g none 300 km
            GEORADIUS none 15 37 200 km
        "#,
        );
    }

    #[test]
    fn places_over_the_date_line_are_found() {
        // Redis 7.0 leaves out the western one.
        let mut bench = Bench::new();
        bench.run("GEOADD w 179.9 0 east -179.9 0.1 west");
        let found = bench
            .run("GEOSEARCH w FROMLONLAT 180 0 BYRADIUS 100 km ASC")
            .0;
        assert_eq!(found, "*2\\r\\n$4\\r\\neast\\r\\n$4\\r\\nwest\\r\\n");
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            (
                "GEOADD g CH 13.361389 38.115556 a",
                "zadd g CH 3479099956230698 a",
            ),
            ("GEOADD g 13.361389 38.115556 a", ""),
            ("GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 1 km", ""),
            (
                "GEOSEARCHSTORE d g FROMLONLAT 13 38 BYRADIUS 900 km COUNT 1 ANY",
                "DEL d; ZADD d 3479099956230698 a",
            ),
            (
                "GEORADIUS g 15 37 1 km STORE d",
                "GEORADIUS g 15 37 1 km STORE d",
            ),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
