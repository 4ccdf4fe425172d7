//! Transactions in a row: many of them on whole shards, in a given order, from one task.
//!
//! A follower applies its primary's stream this way. What two round trips to every shard would cost each of them in waiting is hidden:
//! a transaction gets its place while the one before it is running, and is armed before that one has ended. So a shard goes
//! from one to the next without asking anybody.
//!
//! ```text
//!  ask 1 ─ placed 1 ─ ask 2 ─ arm 1 ─ placed 2 ─ ask 3 ─ arm 2 ─ ended 1 ─ placed 3 ─ ...
//! ```
//!
//! Invariants
//! - The next place is asked for when the one before is there: so they run in this order on every shard.
//! - Who has seen something of one sees all of it, and of those before it, on every shard: all have their places before any of them
//!   runs (see the module above for who may let go early).

use tokio::sync::oneshot;

use super::Coordinator;
use super::coordinator::{Asked, GONE, Scheduled};
use crate::shard::link::question;
use crate::shard::queue::{Footprint, TxId};
use crate::shard::{Admission, After, Intent, Shard};

/// What a transaction does on one shard.
pub struct ShardJob {
    /// The shard.
    pub shard: usize,
    /// Whether a snapshot lets it write.
    pub admission: Admission,
    /// Does it.
    pub run: Box<dyn FnOnce(&mut Shard) + Send>,
}

/// A transaction whose places are asked for.
pub struct AskedInRow {
    places: Vec<(usize, Footprint)>,
    asked: Asked,
}

/// A transaction that has its places.
pub struct Placed {
    places: Vec<(usize, Footprint)>,
    scheduled: Scheduled,
}

/// A transaction that runs when its turn comes.
pub struct Armed {
    id: TxId,
    ends: Vec<oneshot::Receiver<()>>,
    /// Shards that keep its place until all have run.
    held: Vec<usize>,
}

impl Coordinator {
    /// Asks for the next transaction's place with everything on these shards. The one before has its places.
    pub fn ask_in_row(&self, shards: &[usize]) -> AskedInRow {
        let places: Vec<_> = shards
            .iter()
            .map(|shard| (*shard, Footprint::All))
            .collect();
        AskedInRow {
            asked: self.ask(&places),
            places,
        }
    }

    /// Waits for the places.
    pub async fn placed_in_row(&self, asked: AskedInRow) -> Placed {
        let AskedInRow { places, asked } = asked;
        Placed {
            scheduled: self.scheduled(&places, asked).await,
            places,
        }
    }

    /// Says what to run on the shards that were asked for.
    pub fn arm_in_row(&self, placed: Placed, jobs: Vec<ShardJob>) -> Armed {
        let Placed { places, scheduled } = placed;
        let Scheduled { id, is_granted } = scheduled;
        let may_leave = is_granted || places.len() == self.shards();
        let ends = jobs.into_iter().map(|job| {
            let (answer, receiver) = question();
            let ShardJob {
                shard,
                admission,
                run,
            } = job;
            self.here().tell(shard, move |shard| {
                let hop = move |shard: &mut Shard| {
                    run(shard);
                    answer.give(shard, ());
                    if may_leave {
                        After::Release
                    } else {
                        After::Hold
                    }
                };
                shard.arm(id, Intent::WriteMany(admission), Box::new(hop));
            });
            receiver
        });
        let ends: Vec<_> = ends.collect();
        assert_eq!(ends.len(), places.len(), "jobs for the places of {id:?}");
        let held = places.into_iter().filter(|_| !may_leave);
        Armed {
            id,
            ends,
            held: held.map(|(shard, _)| shard).collect(),
        }
    }

    /// Waits until it has run everywhere.
    pub async fn ended_in_row(&self, armed: Armed) {
        for end in armed.ends {
            end.await.expect(GONE);
        }
        let id = armed.id;
        for shard in armed.held {
            self.here().tell(shard, move |shard| shard.release(id));
        }
    }

    /// Runs a transaction on one shard alone, while none of the row is under way: it needs no place elsewhere.
    pub async fn alone_in_row(&self, job: ShardJob) {
        let (answer, receiver) = question();
        self.here().tell(job.shard, move |shard| {
            let hop = move |shard: &mut Shard| {
                (job.run)(shard);
                answer.give(shard, ());
                After::Release
            };
            shard.enqueue_with(
                Footprint::All,
                Intent::WriteMany(job.admission),
                Box::new(hop),
            );
        });
        receiver.await.expect(GONE);
    }
}
