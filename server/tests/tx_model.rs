//! Model check of transactions: the real queue, the protocol of `tx::coordinator`, and a scheduler that tries thread orders.
//!
//! Shard threads own a real [`TxQueue`] and a handful of entries. Coordinator threads send them the messages that the real
//! coordinator sends, for every way a command can go: at once or behind others on one shard, split, gathered, on whole
//! shards, global. What happens is written down as it happens, and the story must then be one that transactions run one
//! after the other could tell.
//!
//! What is checked of each schedule
//! - Nobody waits forever; at the end queues and intents are empty and every entry is home.
//! - Conflicts, the order of each connection and real time (one ended before the other began) have no cycle between them.
//! - Each access sees what the last conflicting write left.
//! - Numbers in the journal are in the order in which each key changed, and a split transaction records once.
//!
//! The faults at the end are slips that one could make in the protocol; each must be found, or the check is blind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use dfsnap_server::shard::queue::{Fingerprint, Footprint, Mode, TxId, TxQueue};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;

/// A transaction of the model; its writes leave its number behind. 0 is the state before all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tx(usize);

/// A key; it lives on shard `key % shards`.
type Key = usize;

/// What happened, in order.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Its client has sent it.
    Began(Tx),
    /// It saw `seen` in a key, and if exclusive left its own number there.
    Access(Tx, Key, Mode, Tx),
    /// It took its number in the journal.
    Recorded(Tx),
    /// Its client has the reply.
    Ended(Tx),
}

/// A slip in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A command runs at once though somebody has its key.
    FastPathLooksAway,
    /// A shard that lends lets go of its intents.
    LenderLetsGo,
    /// The parts of a split transaction let go of their keys before its number is taken.
    NumberAfterRelease,
    /// A transaction over several shards takes an id for each of them.
    IdForEachShard,
    /// Parts let go as soon as they have run, though somebody was in the way of one.
    PartLetsGoEarly,
    /// Keyspaces come back from a global run, but not its places.
    GlobalStays,
}

/// What all threads of the model share.
struct World {
    inboxes: Vec<Sender<Message>>,
    ids: AtomicU64,
    next_tx: AtomicU64,
    is_journaling: AtomicBool,
    /// A plain mutex: threads of the model never meet in it, since they run one at a time.
    events: Arc<Mutex<Vec<Event>>>,
    fault: Fault,
}

impl World {
    fn tell(&self, shard: usize, run: impl FnOnce(&mut Shard) + Send + 'static) {
        self.inboxes[shard].send(Box::new(run)).unwrap();
    }

    fn next_id(&self) -> TxId {
        TxId(self.ids.fetch_add(1, Ordering::SeqCst))
    }

    fn next_tx(&self) -> Tx {
        Tx(self.next_tx.fetch_add(1, Ordering::SeqCst) as usize)
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

type Message = Box<dyn FnOnce(&mut Shard) + Send>;
type Hop = Box<dyn FnOnce(&mut Shard) -> After + Send>;
type Entries = BTreeMap<Key, Tx>;

enum After {
    Release,
    Hold,
    ReleaseThen(Message),
}

/// A shard as in `shard::Shard`, without what the order does not depend on.
struct Shard {
    world: Arc<World>,
    entries: Option<Entries>,
    home: BTreeSet<Key>,
    queue: TxQueue<Hop>,
    is_settling: bool,
    is_over: bool,
}

impl Shard {
    fn settle(&mut self) {
        if std::mem::replace(&mut self.is_settling, true) {
            return;
        }
        while let Some((id, hop)) = self.queue.next() {
            match hop(self) {
                After::Release => self.queue.release(id),
                After::Hold => {}
                After::ReleaseThen(next) => {
                    self.queue.release(id);
                    next(self);
                }
            }
        }
        self.is_settling = false;
    }

    fn arm(&mut self, id: TxId, hop: Hop) {
        self.queue.arm(id, hop);
        self.settle();
    }

    fn release(&mut self, id: TxId) {
        self.queue.release(id);
        self.settle();
    }

    fn enqueue(&mut self, footprint: Footprint, hop: Hop) {
        let id = self.world.next_id();
        self.queue
            .schedule(id, footprint)
            .expect("an id taken here and now is not late");
        self.arm(id, hop);
    }

    fn run(&mut self, tx: Tx, keys: &[Key], mode: Mode) {
        let entries = self
            .entries
            .as_mut()
            .unwrap_or_else(|| panic!("{tx:?} runs while the keyspace is away"));
        access(&self.world, entries, tx, keys, mode);
    }

    fn take(&mut self, keys: &[Key]) -> Entries {
        let entries = self.entries.as_mut().expect("keys are held");
        keys.iter()
            .map(|key| {
                let seen = entries.remove(key);
                (
                    *key,
                    seen.unwrap_or_else(|| panic!("entry {key} is not here to lend")),
                )
            })
            .collect()
    }

    fn put_back(&mut self, lent: Entries) {
        self.entries.as_mut().expect("keys are held").extend(lent);
    }
}

fn access(world: &World, entries: &mut Entries, tx: Tx, keys: &[Key], mode: Mode) {
    for &key in keys {
        let entry = entries
            .get_mut(&key)
            .unwrap_or_else(|| panic!("{tx:?}: entry {key} is missing"));
        world.note(Event::Access(tx, key, mode, *entry));
        if mode == Mode::Exclusive {
            *entry = tx;
        }
    }
}

fn footprint(keys: &[Key], mode: Mode) -> Footprint {
    Footprint::Keys(
        keys.iter()
            .map(|&key| (Fingerprint(key as u64), mode))
            .collect(),
    )
}

/// One command of a pipeline for one shard.
#[derive(Clone)]
enum Call {
    Key(Tx, Key, Mode),
    /// SCAN: wants the whole shard for itself.
    Walk(Tx),
}

/// `command::call::Batch`: commands of one connection in order; where one must wait, the rest waits with it.
fn run_batch(shard: &mut Shard, mut calls: std::vec::IntoIter<Call>, done: Sender<()>) {
    while let Some(call) = calls.next() {
        let looks_away = shard.world.fault == Fault::FastPathLooksAway;
        let (is_free, footprint) = match call {
            Call::Key(_, key, mode) => (
                shard.entries.is_some() && shard.queue.is_key_free(Fingerprint(key as u64), mode)
                    || looks_away,
                footprint(&[key], mode),
            ),
            Call::Walk(_) => (shard.queue.is_empty(), Footprint::All),
        };
        if is_free {
            run_call(shard, &call);
        } else {
            let hop: Hop = Box::new(move |shard| {
                run_call(shard, &call);
                After::ReleaseThen(Box::new(move |shard| run_batch(shard, calls, done)))
            });
            shard.enqueue(footprint, hop);
            return;
        }
    }
    done.send(()).unwrap();
}

fn run_call(shard: &mut Shard, call: &Call) {
    match *call {
        Call::Key(tx, key, mode) => {
            shard.run(tx, &[key], mode);
            if mode == Mode::Exclusive && shard.world.is_journaling.load(Ordering::SeqCst) {
                shard.world.note(Event::Recorded(tx));
            }
        }
        Call::Walk(tx) => {
            let keys: Vec<Key> = shard.home.iter().copied().collect();
            shard.run(tx, &keys, Mode::Shared);
        }
    }
}

type Places = Vec<(usize, Vec<Key>)>;

/// `Coordinator::schedule`: the ids (one, but for a fault), and whether it is granted everywhere.
fn schedule(world: &Arc<World>, places: &[(usize, Footprint)]) -> (Vec<TxId>, bool) {
    loop {
        let id = world.next_id();
        let mut ids = Vec::new();
        let answers: Vec<_> = places
            .iter()
            .map(|(shard, footprint)| {
                let id = match world.fault {
                    Fault::IdForEachShard if !ids.is_empty() => world.next_id(),
                    _ => id,
                };
                ids.push(id);
                let (sender, receiver) = channel();
                let footprint = footprint.clone();
                world.tell(*shard, move |shard| {
                    let answer = shard.queue.schedule(id, footprint);
                    sender.send(answer.ok()).unwrap();
                });
                receiver
            })
            .collect();
        let accepted: Vec<Option<bool>> = answers
            .into_iter()
            .map(|answer| answer.recv().unwrap())
            .collect();
        if accepted.iter().all(Option::is_some) {
            let is_granted = accepted.iter().all(|answer| *answer == Some(true));
            return (ids, is_granted || world.fault == Fault::PartLetsGoEarly);
        }
        for (((shard, _), answer), id) in places.iter().zip(accepted).zip(ids) {
            if answer.is_some() {
                world.tell(*shard, move |shard| {
                    shard.queue.withdraw(id);
                    shard.settle();
                });
            }
        }
    }
}

fn schedule_keys(world: &Arc<World>, places: &Places, mode: Mode) -> (Vec<TxId>, bool) {
    let places: Vec<_> = places
        .iter()
        .map(|(shard, keys)| (*shard, footprint(keys, mode)))
        .collect();
    schedule(world, &places)
}

/// `Coordinator::single`.
fn single(world: &Arc<World>, tx: Tx, place: (usize, Vec<Key>), mode: Mode) {
    let (done, end) = channel();
    let (at, keys) = place;
    world.tell(at, move |shard| {
        let footprint = footprint(&keys, mode);
        let hop: Hop = Box::new(move |shard| {
            shard.run(tx, &keys, mode);
            if mode == Mode::Exclusive && shard.world.is_journaling.load(Ordering::SeqCst) {
                shard.world.note(Event::Recorded(tx));
            }
            done.send(()).unwrap();
            After::Release
        });
        shard.enqueue(footprint, hop);
    });
    end.recv().unwrap();
}

/// `Coordinator::split`.
fn split(world: &Arc<World>, tx: Tx, places: Places, mode: Mode) {
    let (ids, is_granted) = schedule_keys(world, &places, mode);
    let mut ends = Vec::new();
    for ((at, keys), &id) in places.iter().zip(&ids) {
        let (sender, receiver) = channel();
        let keys = keys.clone();
        world.tell(*at, move |shard| {
            let hop: Hop = Box::new(move |shard| {
                let must_gather =
                    mode == Mode::Exclusive && shard.world.is_journaling.load(Ordering::SeqCst);
                shard.run(tx, &keys, mode);
                sender.send(must_gather).unwrap();
                let lets_go = shard.world.fault == Fault::NumberAfterRelease;
                if !is_granted || must_gather && !lets_go {
                    After::Hold
                } else {
                    After::Release
                }
            });
            shard.arm(id, hop);
        });
        ends.push(receiver);
    }
    let gathers: Vec<bool> = ends.into_iter().map(|end| end.recv().unwrap()).collect();
    let is_recorded = gathers[0];
    assert!(
        gathers.iter().all(|gathers| *gathers == is_recorded),
        "{tx:?}: some parts record and some do not"
    );
    if is_recorded {
        let (sender, receiver) = channel();
        world.tell(places[0].0, move |shard| {
            shard.world.note(Event::Recorded(tx));
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
    }
    if !is_granted || is_recorded && world.fault != Fault::NumberAfterRelease {
        for ((at, _), id) in places.into_iter().zip(ids) {
            world.tell(at, move |shard| shard.release(id));
        }
    }
}

/// `Coordinator::gathered`.
fn gathered(world: &Arc<World>, tx: Tx, places: Places) {
    let (ids, _) = schedule_keys(world, &places, Mode::Exclusive);
    let lenders: Vec<_> = places.iter().cloned().zip(ids.clone()).skip(1).collect();
    let (home, home_keys) = places[0].clone();
    let loans: Vec<_> = lenders
        .iter()
        .cloned()
        .map(|((at, keys), id)| {
            let (sender, receiver) = channel();
            world.tell(at, move |shard| {
                let hop: Hop = Box::new(move |shard| {
                    sender.send(shard.take(&keys)).unwrap();
                    match shard.world.fault {
                        Fault::LenderLetsGo => After::Release,
                        _ => After::Hold,
                    }
                });
                shard.arm(id, hop);
            });
            receiver
        })
        .collect();
    let lent: Vec<Entries> = loans.into_iter().map(|loan| loan.recv().unwrap()).collect();
    let (sender, receiver) = channel();
    let (home_id, foreign) = (ids[0], lenders.clone());
    world.tell(home, move |shard| {
        let hop: Hop = Box::new(move |shard| {
            for entries in lent {
                shard.put_back(entries);
            }
            let all = foreign.iter().flat_map(|((_, keys), _)| keys);
            let all: Vec<Key> = home_keys.iter().chain(all).copied().collect();
            shard.run(tx, &all, Mode::Exclusive);
            if shard.world.is_journaling.load(Ordering::SeqCst) {
                shard.world.note(Event::Recorded(tx));
            }
            let back = foreign.iter().map(|((_, keys), _)| shard.take(keys));
            sender.send(back.collect::<Vec<_>>()).unwrap();
            After::Release
        });
        shard.arm(home_id, hop);
    });
    let back = receiver.recv().unwrap();
    for (((at, _), id), entries) in lenders.into_iter().zip(back) {
        world.tell(at, move |shard| {
            shard.put_back(entries);
            if shard.world.fault != Fault::LenderLetsGo {
                shard.release(id);
            }
        });
    }
}

/// `Coordinator::on_shards`. It serves the apply of a stream, which is no origin of records.
fn on_shards(world: &Arc<World>, tx: Tx, shards: Vec<usize>) {
    let places: Vec<_> = shards
        .iter()
        .map(|shard| (*shard, Footprint::All))
        .collect();
    let (ids, is_granted) = schedule(world, &places);
    let ends: Vec<_> = shards
        .into_iter()
        .zip(ids.clone())
        .map(|(at, id)| {
            let (sender, receiver) = channel();
            world.tell(at, move |shard| {
                let hop: Hop = Box::new(move |shard| {
                    let keys: Vec<Key> = shard.home.iter().copied().collect();
                    shard.run(tx, &keys, Mode::Exclusive);
                    sender.send(()).unwrap();
                    if is_granted {
                        After::Release
                    } else {
                        After::Hold
                    }
                });
                shard.arm(id, hop);
            });
            receiver
        })
        .collect();
    for end in ends {
        end.recv().unwrap();
    }
    if !is_granted {
        for ((at, _), id) in places.into_iter().zip(ids) {
            world.tell(at, move |shard| shard.release(id));
        }
    }
}

/// `Coordinator::global`. Every other one switches the journal, as the arrival of a first replica does.
fn global(world: &Arc<World>, tx: Tx, switches_journal: bool) {
    let places: Vec<_> = (0..world.inboxes.len())
        .map(|shard| (shard, Footprint::All))
        .collect();
    let (ids, _) = schedule(world, &places);
    let loans: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(at, &id)| {
            let (sender, receiver) = channel();
            world.tell(at, move |shard| {
                let hop: Hop = Box::new(move |shard| {
                    let entries = shard.entries.take().expect("only the head takes it");
                    sender.send(entries).unwrap();
                    After::Hold
                });
                shard.arm(id, hop);
            });
            receiver
        })
        .collect();
    let mut keyspaces: Vec<Entries> = loans.into_iter().map(|loan| loan.recv().unwrap()).collect();
    for entries in &mut keyspaces {
        let keys: Vec<Key> = entries.keys().copied().collect();
        access(world, entries, tx, &keys, Mode::Exclusive);
    }
    if switches_journal {
        world.is_journaling.fetch_xor(true, Ordering::SeqCst);
    }
    if world.is_journaling.load(Ordering::SeqCst) {
        world.note(Event::Recorded(tx));
    }
    for ((at, entries), id) in keyspaces.into_iter().enumerate().zip(ids) {
        world.tell(at, move |shard| {
            assert!(shard.entries.is_none(), "two keyspaces");
            shard.entries = Some(entries);
            if shard.world.fault != Fault::GlobalStays {
                shard.queue.release(id);
            }
            shard.settle();
        });
    }
}

/// Size of a model.
#[derive(Clone, Copy)]
struct Size {
    shards: usize,
    keys: usize,
    coordinators: usize,
    rounds: usize,
}

const SMALL: Size = Size {
    shards: 2,
    keys: 3,
    coordinators: 3,
    rounds: 2,
};

const WIDE: Size = Size {
    shards: 3,
    keys: 5,
    coordinators: 4,
    rounds: 2,
};

fn random_mode() -> Mode {
    if thread_rng().gen_range(0..3) == 0 {
        Mode::Shared
    } else {
        Mode::Exclusive
    }
}

/// Keys on at least `shards_min` shards, those of the first shard first; which shard is first is left to chance.
fn random_places(size: Size, shards_min: usize) -> Places {
    loop {
        let count = thread_rng().gen_range(shards_min..=size.keys);
        let mut places = Places::new();
        for _ in 0..count {
            let key = thread_rng().gen_range(0..size.keys);
            let shard = key % size.shards;
            match places.iter_mut().find(|(at, _)| *at == shard) {
                Some((_, keys)) if keys.contains(&key) => {}
                Some((_, keys)) => keys.push(key),
                None => places.push((shard, vec![key])),
            }
        }
        if places.len() >= shards_min {
            return places;
        }
    }
}

/// One client: a few transactions, each after the reply to the last.
fn client(world: &Arc<World>, size: Size) -> Vec<Tx> {
    let mut own = Vec::new();
    for _ in 0..size.rounds {
        let kind = thread_rng().gen_range(0..13);
        let count = if kind < 5 {
            thread_rng().gen_range(1..=3)
        } else {
            1
        };
        let txs: Vec<Tx> = (0..count).map(|_| world.next_tx()).collect();
        for &tx in &txs {
            world.note(Event::Began(tx));
        }
        match kind {
            0..5 => {
                let at = thread_rng().gen_range(0..size.shards);
                let home: Vec<Key> = (at..size.keys).step_by(size.shards).collect();
                let calls: Vec<Call> = txs
                    .iter()
                    .map(|&tx| match thread_rng().gen_range(0..8) {
                        0 => Call::Walk(tx),
                        _ => {
                            let key = home[thread_rng().gen_range(0..home.len())];
                            Call::Key(tx, key, random_mode())
                        }
                    })
                    .collect();
                let (done, end) = channel();
                world.tell(at, move |shard| run_batch(shard, calls.into_iter(), done));
                end.recv().unwrap();
            }
            5 => single(
                world,
                txs[0],
                random_places(size, 1).swap_remove(0),
                random_mode(),
            ),
            6..9 => split(world, txs[0], random_places(size, 2), random_mode()),
            9..11 => gathered(world, txs[0], random_places(size, 2)),
            11 => {
                let shards = random_places(size, 1).into_iter().map(|(at, _)| at);
                on_shards(world, txs[0], shards.collect());
            }
            _ => global(world, txs[0], thread_rng().gen_range(0..2) == 0),
        }
        for &tx in &txs {
            world.note(Event::Ended(tx));
        }
        own.extend(txs);
    }
    own
}

fn shard_thread(world: Arc<World>, at: usize, size: Size, inbox: &Receiver<Message>) {
    let home: BTreeSet<Key> = (at..size.keys).step_by(size.shards).collect();
    let mut shard = Shard {
        entries: Some(home.iter().map(|key| (*key, Tx(0))).collect()),
        home,
        queue: TxQueue::default(),
        is_settling: false,
        is_over: false,
        world,
    };
    while !shard.is_over {
        inbox.recv().unwrap()(&mut shard);
    }
    assert!(
        shard.queue.is_empty(),
        "shard {at}: {} places left",
        shard.queue.len()
    );
    let all: Vec<Key> = (0..size.keys).collect();
    assert!(
        shard.queue.is_free(&footprint(&all, Mode::Exclusive)),
        "shard {at}: an intent is left"
    );
    let here: BTreeSet<Key> = shard.entries.expect("it is back").into_keys().collect();
    assert_eq!(here, shard.home, "entries of shard {at}");
}

/// What a client does; it returns its transactions in order.
type Client = Box<dyn FnOnce(&Arc<World>) -> Vec<Tx> + Send>;

/// One run of the model under the scheduler of the moment.
fn run(size: Size, fault: Fault, clients: Vec<Client>) {
    let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..size.shards).map(|_| channel()).unzip();
    let events = Arc::new(Mutex::new(Vec::new()));
    let world = Arc::new(World {
        inboxes,
        ids: AtomicU64::new(1),
        next_tx: AtomicU64::new(1),
        is_journaling: AtomicBool::new(thread_rng().gen_range(0..2) == 0),
        events: events.clone(),
        fault,
    });
    let shards: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(at, inbox)| {
            let world = world.clone();
            thread::spawn(move || shard_thread(world, at, size, &inbox))
        })
        .collect();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let world = world.clone();
            thread::spawn(move || client(&world))
        })
        .collect();
    let sessions: Vec<Vec<Tx>> = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect();
    for at in 0..size.shards {
        world.tell(at, |shard| shard.is_over = true);
    }
    for shard in shards {
        shard.join().unwrap();
    }
    let events = std::mem::take(&mut *events.lock().unwrap());
    check(&events, &sessions);
}

/// Judges a story.
fn check(events: &[Event], sessions: &[Vec<Tx>]) {
    let mut edges: BTreeSet<(Tx, Tx)> = BTreeSet::new();
    for session in sessions {
        edges.extend(session.windows(2).map(|pair| (pair[0], pair[1])));
    }
    let mut ended: Vec<Tx> = Vec::new();
    let mut recorded: BTreeMap<Tx, usize> = BTreeMap::new();
    let mut accesses: BTreeMap<Key, Vec<(Tx, Mode)>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        match *event {
            Event::Began(tx) => edges.extend(ended.iter().map(|before| (*before, tx))),
            Event::Ended(tx) => ended.push(tx),
            Event::Recorded(tx) => {
                let old = recorded.insert(tx, at);
                assert!(old.is_none(), "{tx:?} recorded twice: {events:?}");
            }
            Event::Access(tx, key, mode, seen) => {
                let story = accesses.entry(key).or_default();
                let writes = story.iter().filter(|(_, mode)| *mode == Mode::Exclusive);
                let last = writes.map(|(tx, _)| *tx).next_back().unwrap_or(Tx(0));
                assert_eq!(seen, last, "{tx:?} saw another entry {key}: {events:?}");
                for (before, before_mode) in story.iter() {
                    if *before_mode == Mode::Exclusive || mode == Mode::Exclusive {
                        edges.insert((*before, tx));
                    }
                }
                story.push((tx, mode));
            }
        }
    }
    let count: usize = sessions.iter().map(Vec::len).sum();
    assert_eq!(ended.len(), count, "every transaction ends: {events:?}");
    for (key, story) in &accesses {
        let writers = story.iter().filter(|(_, mode)| *mode == Mode::Exclusive);
        let numbers: Vec<usize> = writers
            .filter_map(|(tx, _)| recorded.get(tx).copied())
            .collect();
        assert!(
            numbers.is_sorted(),
            "journal numbers disagree with entry {key}: {events:?}"
        );
    }
    let mut left: BTreeSet<Tx> = sessions.iter().flatten().copied().collect();
    while let Some(first) = left
        .iter()
        .copied()
        .find(|tx| !edges.iter().any(|(a, b)| b == tx && left.contains(a)))
    {
        left.remove(&first);
    }
    assert!(left.is_empty(), "no order fits {left:?}: {events:?}");
}

fn explore(scheduler: impl Scheduler + 'static, size: Size, fault: Fault) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    shuttle::Runner::new(scheduler, config).run(move || {
        let clients = (0..size.coordinators)
            .map(|_| -> Client { Box::new(move |world| client(world, size)) })
            .collect();
        run(size, fault, clients);
    });
}

#[test]
fn random_schedules_are_serializable_in_real_time() {
    explore(RandomScheduler::new(6000), SMALL, Fault::None);
    explore(RandomScheduler::new(2000), WIDE, Fault::None);
}

#[test]
fn schedules_with_few_preemptions_are_serializable_in_real_time() {
    for depth in [2, 3, 5] {
        explore(PctScheduler::new(depth, 1500), SMALL, Fault::None);
        explore(PctScheduler::new(depth, 500), WIDE, Fault::None);
    }
}

/// Parts used to let go as soon as they had run. A client could then read on shard 0 what the second transaction wrote, and
/// overtake on shard 1 the first, which comes before the second on shard 2. `tx/mod.rs` has the steps.
fn explore_early_release(fault: Fault) {
    let transaction = |places: Places| -> Client {
        Box::new(move |world| {
            let tx = world.next_tx();
            world.note(Event::Began(tx));
            split(world, tx, places, Mode::Exclusive);
            world.note(Event::Ended(tx));
            vec![tx]
        })
    };
    let one_by_one: fn(&Arc<World>) -> Vec<Tx> = |world| {
        let calls = [(0, Mode::Shared), (1, Mode::Exclusive)];
        let run_one = |(key, mode): (Key, Mode)| {
            let tx = world.next_tx();
            world.note(Event::Began(tx));
            let (done, end) = channel();
            let calls = vec![Call::Key(tx, key, mode)].into_iter();
            world.tell(key, move |shard| run_batch(shard, calls, done));
            end.recv().unwrap();
            world.note(Event::Ended(tx));
            tx
        };
        calls.map(run_one).to_vec()
    };
    let size = Size { keys: 3, ..WIDE };
    shuttle::Runner::new(PctScheduler::new(3, 5000), shuttle::Config::new()).run(move || {
        let first = transaction(vec![(2, vec![2]), (1, vec![1])]);
        let second = transaction(vec![(0, vec![0]), (2, vec![2])]);
        run(size, fault, vec![first, second, Box::new(one_by_one)]);
    });
}

#[test]
fn reader_of_a_split_transaction_never_overtakes_what_came_before_it() {
    explore_early_release(Fault::None);
    let found = std::panic::catch_unwind(|| explore_early_release(Fault::PartLetsGoEarly));
    assert!(found.is_err(), "the model no longer shows the fault");
}

/// How a fault shows differs from schedule to schedule; without one, the same runs are silent.
#[test]
fn every_fault_is_found() {
    for fault in [
        Fault::FastPathLooksAway,
        Fault::LenderLetsGo,
        Fault::NumberAfterRelease,
        Fault::IdForEachShard,
        Fault::GlobalStays,
    ] {
        let found = std::panic::catch_unwind(|| explore(RandomScheduler::new(5000), SMALL, fault));
        assert!(found.is_err(), "{fault:?} passes unseen");
    }
}
