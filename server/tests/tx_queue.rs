//! The transaction queue of one shard against a list that is searched from end to end.

use std::collections::BTreeSet;

use dfsnap_server::shard::queue::{Fingerprint, Footprint, Mode, Refused, TxId, TxQueue};
use proptest::prelude::*;

/// What a transaction touches; `None` is everything.
type Keys = Option<Vec<(u64, Mode)>>;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Scheduled,
    Armed(u32),
    Running,
}

/// One place of the plain model.
struct Place {
    id: u64,
    keys: Keys,
    /// Nobody was in its way when it came, or it has been at the head.
    is_granted: bool,
    stage: Stage,
}

fn conflict(a: &Keys, b: &Keys) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return true;
    };
    a.iter().any(|(key, mode)| {
        b.iter().any(|(other, other_mode)| {
            key == other && (*mode == Mode::Exclusive || *other_mode == Mode::Exclusive)
        })
    })
}

fn footprint(keys: &Keys) -> Footprint {
    match keys {
        None => Footprint::All,
        Some(keys) => Footprint::Keys(
            keys.iter()
                .map(|&(key, mode)| (Fingerprint(key), mode))
                .collect(),
        ),
    }
}

/// What is done to both. Numbers choose among what is possible at that moment.
#[derive(Clone, Debug)]
enum Step {
    /// Schedule an id not used so far, this far behind the newest.
    Schedule(u64, Keys),
    Arm(usize),
    Next,
    NextDeferred,
    Release(usize),
    Withdraw(usize),
}

fn keys() -> impl Strategy<Value = Keys> {
    let mode = prop_oneof![Just(Mode::Shared), Just(Mode::Exclusive)];
    let some = prop::collection::vec((0..4_u64, mode), 1..4).prop_map(Some);
    prop_oneof![9 => some, 1 => Just(None)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u64, keys()).prop_map(|(back, keys)| Step::Schedule(back, keys)),
        4 => any::<usize>().prop_map(Step::Arm),
        4 => Just(Step::Next),
        1 => Just(Step::NextDeferred),
        3 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Withdraw),
    ]
}

#[derive(Default)]
struct Both {
    queue: TxQueue<u32>,
    places: Vec<Place>,
    used: BTreeSet<u64>,
    newest: u64,
    /// Everything that was released, with what it touched.
    released: Vec<(u64, Keys)>,
    highest_seen: u64,
    hops: u32,
}

impl Both {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Schedule(back, keys) => self.schedule(back, keys),
            Step::Arm(n) => {
                if let Some(at) = self.choose(n, |stage| {
                    stage == Stage::Scheduled || stage == Stage::Running
                }) {
                    self.arm(at);
                }
            }
            Step::Next => {
                self.next();
            }
            Step::NextDeferred => {
                if let Some((id, hop)) = self.queue.next() {
                    self.queue.defer(id, hop);
                    assert_eq!(self.queue.next(), Some((id, hop)), "deferred comes first");
                    self.queue.defer(id, hop);
                    let place = self.place(id.0);
                    place.is_granted = true;
                    // In front of all that are armed.
                    place.stage = Stage::Armed(0);
                }
            }
            Step::Release(n) => {
                if let Some(at) = self.choose(n, |stage| stage == Stage::Running) {
                    let place = self.places.remove(at);
                    self.queue.release(TxId(place.id));
                    self.released.push((place.id, place.keys));
                }
            }
            Step::Withdraw(n) => {
                if let Some(at) = self.choose(n, |stage| stage == Stage::Scheduled) {
                    let place = self.places.remove(at);
                    self.queue.withdraw(TxId(place.id));
                }
            }
        }
        self.compare();
    }

    fn choose(&self, n: usize, fits: impl Fn(Stage) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.places.len())
            .filter(|at| fits(self.places[*at].stage))
            .collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn place(&mut self, id: u64) -> &mut Place {
        self.places
            .iter_mut()
            .find(|place| place.id == id)
            .expect("what comes out is in the list")
    }

    fn schedule(&mut self, back: u64, keys: Keys) {
        self.newest += 2;
        let id = self.newest.saturating_sub(back).max(1);
        if !self.used.insert(id) {
            return;
        }
        let in_the_way = self.places.iter().any(|place| conflict(&place.keys, &keys));
        let highest_released = self.released.iter().map(|(id, _)| *id).max().unwrap_or(0);
        let is_late = id < self.highest_seen && (in_the_way || id < highest_released);
        let answer = self.queue.schedule(TxId(id), footprint(&keys));
        assert_eq!(
            answer,
            if is_late {
                Err(Refused)
            } else {
                Ok(!in_the_way)
            },
            "id {id}"
        );
        if is_late {
            return;
        }
        let overtaken = self
            .places
            .iter()
            .map(|place| (place.id, &place.keys))
            .chain(self.released.iter().map(|(id, keys)| (*id, keys)))
            .find(|(other, other_keys)| *other > id && conflict(other_keys, &keys));
        assert!(overtaken.is_none(), "{id} comes after {overtaken:?}");
        self.highest_seen = self.highest_seen.max(id);
        self.places.push(Place {
            id,
            keys,
            is_granted: !in_the_way,
            stage: Stage::Scheduled,
        });
    }

    fn arm(&mut self, at: usize) {
        self.hops += 1;
        let place = &mut self.places[at];
        place.stage = Stage::Armed(self.hops);
        self.queue.arm(TxId(place.id), self.hops);
    }

    /// Runs what may run: who was armed first of those granted, else the lowest id.
    fn next(&mut self) -> bool {
        let granted = self
            .places
            .iter()
            .filter(|place| place.is_granted)
            .filter_map(|place| match place.stage {
                Stage::Armed(since) => Some((since, place.id)),
                Stage::Scheduled | Stage::Running => None,
            })
            .min()
            .map(|(_, id)| id);
        let head = self
            .places
            .iter()
            .min_by_key(|place| place.id)
            .filter(|place| matches!(place.stage, Stage::Armed(_)))
            .map(|place| place.id);
        let want = granted.or(head);
        let got = self.queue.next().map(|(id, _)| id.0);
        assert_eq!(got, want);
        let Some(id) = got else {
            return false;
        };
        let keys = self.place(id).keys.clone();
        let before = self
            .places
            .iter()
            .find(|place| place.id < id && conflict(&place.keys, &keys));
        assert!(
            before.is_none(),
            "{id} runs before {:?}",
            before.map(|p| p.id)
        );
        let place = self.place(id);
        place.is_granted = true;
        place.stage = Stage::Running;
        true
    }

    fn compare(&self) {
        assert_eq!(self.queue.len(), self.places.len());
        assert_eq!(self.queue.is_empty(), self.places.is_empty());
        for key in 0..4 {
            for mode in [Mode::Shared, Mode::Exclusive] {
                let wanted = Some(vec![(key, mode)]);
                let is_free = !self
                    .places
                    .iter()
                    .any(|place| conflict(&place.keys, &wanted));
                assert_eq!(
                    self.queue.is_key_free(Fingerprint(key), mode),
                    is_free,
                    "key {key}, {mode:?}"
                );
                assert_eq!(self.queue.is_free(&footprint(&wanted)), is_free);
            }
        }
        assert_eq!(self.queue.is_free(&Footprint::All), self.places.is_empty());
    }

    /// Everybody who has a place goes on until nobody is left.
    fn finish(&mut self) {
        while !self.places.is_empty() {
            let mut has_moved = false;
            for at in 0..self.places.len() {
                if self.places[at].stage == Stage::Scheduled {
                    self.arm(at);
                }
            }
            while self.next() {
                has_moved = true;
            }
            while let Some(at) = self.choose(0, |stage| stage == Stage::Running) {
                let place = self.places.remove(at);
                self.queue.release(TxId(place.id));
                has_moved = true;
            }
            self.compare();
            assert!(has_moved, "{} wait for nobody", self.places.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn queue_does_what_a_plain_list_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut both = Both::default();
        for step in steps {
            both.apply(step);
        }
        both.finish();
    }
}
