//! The coordinator's side of the protocol; see the module above.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::keyspace::blob::Blob;
use crate::keyspace::{DbIndex, Key, Keyspace, shard_of};
use crate::shard::Intent;
use crate::shard::link::{Links, question};
use crate::shard::queue::{Footprint, Mode, Refused, TxId};
use crate::shard::{After, Shard, fingerprint};

/// Keys that passed the door during a run.
pub type Touched = Vec<(DbIndex, Blob)>;

/// Keys of a transaction on one shard.
pub type Keys = SmallVec<[(DbIndex, Blob); 2]>;

/// Ends a run that keeps its keys until then: what it leaves behind. Called once, on the shard's thread.
pub type Finish<E> = Box<dyn FnOnce(&mut Shard, E) + Send>;

/// Runs on the home shard, with the lent entries in its keyspace. It may go on elsewhere, and keeps its keys until it is finished.
pub type GatherJob<R> = Box<dyn FnOnce(&mut Shard, Finish<GatherEnd<R>>) + Send>;

/// Runs on each shard of a gathered transaction, home included, while it still holds its keys.
pub type AtHome = Arc<dyn Fn(&mut Shard) + Send + Sync>;

/// What a gathered job leaves behind.
pub struct GatherEnd<R> {
    /// Its result.
    pub result: R,
    /// Keys that passed the door.
    pub touched: Touched,
    /// What to do on each shard when its entries are back.
    pub at_home: Option<AtHome>,
}

/// All keyspaces, in order of shards.
pub type Keyspaces = Vec<Box<Keyspace>>;

/// Runs with all keyspaces, in order of shards, on the coordinator's thread.
pub type GlobalJob<'a, R> = Box<dyn FnOnce(&mut [Box<Keyspace>]) -> (R, Touched) + 'a>;

/// Runs one shard's part of a split transaction.
pub type PartJob<R> = Box<dyn FnOnce(&mut Shard) -> PartEnd<R> + Send>;

/// One shard's part of a split transaction.
pub struct Part<R> {
    /// The shard.
    pub shard: usize,
    /// Its keys.
    pub keys: Keys,
    /// What it runs.
    pub run: PartJob<R>,
}

/// What a part leaves behind.
pub struct PartEnd<R> {
    /// Its result.
    pub result: R,
    /// Effects to record with those of the other parts. If there are none, the part releases its keys at once.
    pub effects: Effects,
}

/// Encoded commands for replicas, each with its database.
pub type Effects = Vec<(DbIndex, Vec<u8>)>;

/// What a thread has of the shards: its own at hand (a control thread has none), the others by message.
#[derive(Clone)]
pub struct Here {
    /// The shard of this thread.
    pub shard: Option<Rc<RefCell<Shard>>>,
    /// The way to all shards.
    pub links: Arc<Links>,
}

impl Here {
    /// Whether a shard belongs to this thread.
    fn is_own(&self, shard: usize) -> bool {
        self.shard
            .as_ref()
            .is_some_and(|own| own.borrow().index == shard)
    }

    /// Runs a function on a shard: at once if it is this thread's, else in order with earlier messages.
    pub fn tell(&self, shard: usize, run: impl FnOnce(&mut Shard) + Send + 'static) {
        match &self.shard {
            Some(own) if self.is_own(shard) => {
                let mut own = own.borrow_mut();
                run(&mut own);
                own.post_records();
            }
            _ => self.links.send(shard, Box::new(run)),
        }
    }
}

/// Runs transactions over several shards.
#[derive(Clone)]
pub struct Coordinator {
    here: Here,
}

/// Places asked for, and the answers on their way.
pub(super) struct Asked {
    id: TxId,
    answers: Vec<oneshot::Receiver<Result<bool, Refused>>>,
}

/// A place on every shard that a transaction needs.
pub(super) struct Scheduled {
    pub(super) id: TxId,
    /// Nobody was in its way on any of them. It then had all its keys at one moment, and a part that has run may let go
    /// of them. Otherwise no part may before all have run: see the module documentation.
    pub(super) is_granted: bool,
}

/// The process is going down: a shard no longer answers.
pub(super) const GONE: &str = "a shard's thread ends only with the process";

impl Coordinator {
    /// A coordinator on this thread.
    pub fn new(here: Here) -> Coordinator {
        Coordinator { here }
    }

    /// This thread's way to the shards.
    pub fn here(&self) -> &Here {
        &self.here
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.here.links.shards()
    }

    /// Sorts keys by shard.
    pub fn by_shard<'k>(
        &self,
        keys: impl IntoIterator<Item = (DbIndex, &'k [u8])>,
    ) -> Vec<(usize, Keys)> {
        let shards = self.shards();
        let mut places: Vec<(usize, Keys)> = Vec::new();
        for (db, key) in keys {
            let shard = shard_of(Key::new(key).hash, shards);
            let at = match places.iter().position(|(s, _)| *s == shard) {
                Some(at) => at,
                None => {
                    places.push((shard, Keys::new()));
                    places.len() - 1
                }
            };
            let known = &mut places[at].1;
            if !known
                .iter()
                .any(|(known_db, known)| *known_db == db && known.as_slice() == key)
            {
                known.push((db, Blob::new(key)));
            }
        }
        places
    }

    /// Takes a place on each of these shards, all under one id.
    pub(super) async fn schedule(&self, places: &[(usize, Footprint)]) -> Scheduled {
        let asked = self.ask(places);
        self.scheduled(places, asked).await
    }

    /// Asks for a place on each of these shards.
    pub(super) fn ask(&self, places: &[(usize, Footprint)]) -> Asked {
        let id = self.here.links.next_tx_id();
        let answers = places.iter().map(|(shard, footprint)| {
            let (answer, receiver) = question();
            let footprint = footprint.clone();
            self.here.tell(*shard, move |shard| {
                let is_accepted = shard.schedule(id, footprint);
                answer.give(shard, is_accepted);
            });
            receiver
        });
        Asked {
            answers: answers.collect(),
            id,
        }
    }

    /// Waits until all places asked for are given; asks again, under a new id, if one is refused.
    pub(super) async fn scheduled(
        &self,
        places: &[(usize, Footprint)],
        mut asked: Asked,
    ) -> Scheduled {
        loop {
            let id = asked.id;
            let mut accepted = Vec::with_capacity(places.len());
            let mut is_granted = true;
            for ((shard, _), answer) in places.iter().zip(asked.answers) {
                if let Ok(is_granted_here) = answer.await.expect(GONE) {
                    accepted.push(*shard);
                    is_granted &= is_granted_here;
                }
            }
            if accepted.len() == places.len() {
                return Scheduled { id, is_granted };
            }
            for shard in accepted {
                self.here.tell(shard, move |shard| shard.withdraw(id));
            }
            asked = self.ask(places);
        }
    }

    /// Runs a job on one shard, when its keys are free.
    pub async fn single<R: Send + 'static>(
        &self,
        shard: usize,
        keys: Keys,
        mode: Mode,
        job: impl FnOnce(&mut Shard) -> R + Send + 'static,
    ) -> R {
        let (answer, receiver) = question();
        self.here.tell(shard, move |shard| {
            let footprint = footprint(&keys, mode);
            let writes = if mode == Mode::Exclusive {
                keys
            } else {
                Keys::new()
            };
            shard.enqueue(
                footprint,
                writes,
                Box::new(move |shard| {
                    let result = job(shard);
                    answer.give(shard, result);
                    After::Release
                }),
            );
        });
        receiver.await.expect(GONE)
    }

    /// Runs a job on one shard, when its keys are free. It may go on elsewhere, and keeps them for itself until it is finished.
    pub async fn single_held<R: Send + 'static>(
        &self,
        shard: usize,
        keys: Keys,
        job: impl FnOnce(&mut Shard, Finish<R>) + Send + 'static,
    ) -> R {
        let (answer, receiver) = question();
        self.here.tell(shard, move |shard| {
            let id = shard.links.next_tx_id();
            assert!(
                shard
                    .schedule(id, footprint(&keys, Mode::Exclusive))
                    .is_ok(),
                "an id taken here and now is not late"
            );
            let finish = move |shard: &mut Shard, result: R| {
                answer.give(shard, result);
                shard.release(id);
            };
            let hop = move |shard: &mut Shard| {
                job(shard, Box::new(finish));
                After::Hold
            };
            shard.arm(id, Intent::Write(keys), Box::new(hop));
        });
        receiver.await.expect(GONE)
    }

    /// Runs a job over keys of several shards on the first of `places`, its home.
    pub async fn gathered<R: Send + 'static>(
        &self,
        places: Vec<(usize, Keys)>,
        job: GatherJob<R>,
    ) -> R {
        let scheduled: Vec<_> = places
            .iter()
            .map(|(shard, keys)| (*shard, footprint(keys, Mode::Exclusive)))
            .collect();
        let id = self.schedule(&scheduled).await.id;
        let mut places = places.into_iter();
        let (home, home_keys) = places.next().expect("a gathered transaction has keys");
        let lenders: Vec<_> = places.collect();
        let loans: Vec<_> = lenders
            .iter()
            .map(|(shard, keys)| {
                let (answer, receiver) = question();
                let keys = keys.clone();
                self.here.tell(*shard, move |shard| {
                    shard.arm(
                        id,
                        Intent::Write(keys.clone()),
                        Box::new(move |shard| {
                            let keyspace = shard
                                .keyspace
                                .as_mut()
                                .expect("a held key keeps the keyspace here");
                            let entries = keyspace.lend(&keys);
                            answer.give(shard, entries);
                            After::Hold
                        }),
                    );
                });
                receiver
            })
            .collect();
        let mut lent = Vec::new();
        for loan in loans {
            lent.extend(loan.await.expect(GONE));
        }
        let foreign: Vec<Keys> = lenders.iter().map(|(_, keys)| keys.clone()).collect();
        let (answer, receiver) = question();
        self.here.tell(home, move |shard| {
            shard.arm(
                id,
                Intent::Write(home_keys),
                Box::new(move |shard| {
                    let keyspace = shard
                        .keyspace
                        .as_mut()
                        .expect("a held key keeps the keyspace here");
                    keyspace.take_back(lent);
                    let finish = move |shard: &mut Shard, end: GatherEnd<R>| {
                        let keyspace = shard
                            .keyspace
                            .as_mut()
                            .expect("a held key keeps the keyspace here");
                        let back: Vec<_> =
                            foreign.iter().map(|keys| keyspace.take_out(keys)).collect();
                        shard.announce(&end.touched);
                        if let Some(at_home) = &end.at_home {
                            at_home(shard);
                        }
                        answer.give(shard, (end, back));
                        shard.release(id);
                    };
                    job(shard, Box::new(finish));
                    After::Hold
                }),
            );
        });
        let (end, back) = receiver.await.expect(GONE);
        for ((shard, _), entries) in lenders.into_iter().zip(back) {
            let (touched, at_home) = (end.touched.clone(), end.at_home.clone());
            self.here.tell(shard, move |shard| {
                let keyspace = shard
                    .keyspace
                    .as_mut()
                    .expect("a held key keeps the keyspace here");
                keyspace.take_back(entries);
                shard.announce(&touched);
                if let Some(at_home) = at_home {
                    at_home(shard);
                }
                shard.release(id);
            });
        }
        end.result
    }

    /// Runs each part on its shard, all of them at one point of the order. Results come in the order of the parts. `join` makes one
    /// record of their effects.
    pub async fn split<R: Send + 'static>(
        &self,
        parts: Vec<Part<R>>,
        mode: Mode,
        join: impl FnOnce(Vec<Effects>) -> Effects,
    ) -> Vec<R> {
        let scheduled: Vec<_> = parts
            .iter()
            .map(|part| (part.shard, footprint(&part.keys, mode)))
            .collect();
        let Scheduled { id, is_granted } = self.schedule(&scheduled).await;
        let mut ends = Vec::with_capacity(parts.len());
        for part in parts {
            let (answer, receiver) = question();
            let at = part.shard;
            self.here.tell(at, move |shard| {
                let writes = if mode == Mode::Exclusive {
                    part.keys
                } else {
                    Keys::new()
                };
                shard.arm(
                    id,
                    Intent::Write(writes),
                    Box::new(move |shard| {
                        // Active or not is the same for all parts: it changes only in a global run.
                        let is_write = mode == Mode::Exclusive && shard.journal.is_active();
                        let end = (part.run)(shard);
                        // Those who read have effects too: keys whose time has come.
                        let must_hold = is_write || !is_granted || !end.effects.is_empty();
                        answer.give(shard, (end, must_hold));
                        if must_hold {
                            After::Hold
                        } else {
                            After::Release
                        }
                    }),
                );
            });
            ends.push((at, receiver));
        }
        let mut results = Vec::with_capacity(ends.len());
        let mut held = Vec::new();
        let mut effects = Vec::new();
        for (shard, end) in ends {
            let (end, is_held) = end.await.expect(GONE);
            results.push(end.result);
            effects.push(end.effects);
            if is_held {
                held.push(shard);
            }
        }
        // The number is taken while all parts hold their keys, on one of their threads or on this one alike.
        if effects.iter().any(|effects| !effects.is_empty()) {
            let (answer, receiver) = question();
            let effects = join(effects);
            self.here.tell(held[0], move |shard| {
                shard.record(&effects);
                shard.post_records();
                answer.give(shard, ());
            });
            receiver.await.expect(GONE);
        }
        for shard in held {
            self.here.tell(shard, move |shard| shard.release(id));
        }
        results
    }

    /// Runs a job with all keyspaces, while nothing else runs on any shard.
    pub async fn global<R>(&self, job: GlobalJob<'_, R>) -> R {
        let (id, mut keyspaces) = self.take_all().await;
        let (result, touched) = job(&mut keyspaces);
        self.give_back(id, keyspaces, &touched);
        result
    }

    /// The same for a job that takes its time, and takes them elsewhere for it. Whoever needs a key waits.
    pub async fn global_elsewhere<R>(
        &self,
        job: impl AsyncFnOnce(Keyspaces) -> (R, Touched, Keyspaces),
    ) -> R {
        let (id, keyspaces) = self.take_all().await;
        let (result, touched, keyspaces) = job(keyspaces).await;
        self.give_back(id, keyspaces, &touched);
        result
    }

    async fn take_all(&self) -> (TxId, Keyspaces) {
        let places: Vec<_> = (0..self.shards())
            .map(|shard| (shard, Footprint::All))
            .collect();
        let id = self.schedule(&places).await.id;
        let loans: Vec<_> = (0..self.shards())
            .map(|shard| {
                let (answer, receiver) = question();
                self.here.tell(shard, move |shard| {
                    shard.arm(
                        id,
                        Intent::Take,
                        Box::new(move |shard| {
                            let keyspace = shard
                                .keyspace
                                .take()
                                .expect("only the head of the queue takes it");
                            answer.give(shard, keyspace);
                            After::Hold
                        }),
                    );
                });
                receiver
            })
            .collect();
        let mut keyspaces = Vec::with_capacity(loans.len());
        for loan in loans {
            keyspaces.push(loan.await.expect(GONE));
        }
        (id, keyspaces)
    }

    fn give_back(&self, id: TxId, keyspaces: Keyspaces, touched: &Touched) {
        for (shard, keyspace) in keyspaces.into_iter().enumerate() {
            let touched = touched.clone();
            self.here.tell(shard, move |shard| {
                shard.return_keyspace(id, keyspace, &touched);
            });
        }
    }
}

/// Intents on these keys.
fn footprint(keys: &Keys, mode: Mode) -> Footprint {
    Footprint::Keys(
        keys.iter()
            .map(|(db, key)| (fingerprint(*db, Key::new(key).hash), mode))
            .collect(),
    )
}
