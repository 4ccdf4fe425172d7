//! Follows a primary and prints its changes: `cargo run -p dfsnap-replica --example follow -- 127.0.0.1 6379`

use dfsnap_replica::{Apply, ApplyError, Follower, LinkConfig, PayloadStart, Transaction};

struct Printer;

impl Apply for Printer {
    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        println!("a full copy comes, then what follows {:?}", start.origin);
        Ok(())
    }
    async fn payload(&mut self, _rdb: &[u8]) -> Result<(), ApplyError> {
        Ok(())
    }
    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        Ok(0)
    }
    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        for command in unit.commands() {
            let words: Vec<_> = command
                .words()
                .map(|w| w.escape_ascii().to_string())
                .collect();
            println!("{} db {}: {}", unit.end_offset, command.db, words.join(" "));
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, host, port] = args.as_slice() else {
        return Err("usage: follow HOST PORT".into());
    };
    let mut follower = Follower::new(host, port.parse()?, LinkConfig::default());
    follower
        .follow(&mut Printer, std::future::pending())
        .await?;
    Ok(())
}
