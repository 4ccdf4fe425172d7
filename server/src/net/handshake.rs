//! Handshakes of TLS, on a thread of their own.
//!
//! A signature costs as much as hundreds of commands. The listener hands connections over here; those whose handshake succeeds go to
//! the shards' threads, as others do at once.
//!
//! Invariants
//! - A connection that says nothing is let go of after [`LIMIT`].
//! - Connections here count among `maxclients`.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfsnap_replica::TcpWire;
use dfsnap_tls::Session;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::listener;
use super::socket::{Socket, TlsSocket};
use crate::world::World;

/// How long a handshake may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection that was accepted.
pub type Arrived = (std::net::TcpStream, SocketAddr);

/// Starts the thread. It ends when there is nobody left who could send it anything.
pub fn start(world: &Arc<World>) -> io::Result<UnboundedSender<Arrived>> {
    let (sender, arrivals) = unbounded_channel();
    let world = world.clone();
    std::thread::Builder::new()
        .name("tls".to_owned())
        .spawn(move || {
            crate::memory::count_this_thread();
            let runtime = Builder::new_current_thread()
                .on_thread_start(crate::memory::count_this_thread)
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(world, arrivals)),
                Err(error) => tracing::error!(%error, "no connection with TLS can be served"),
            }
        })?;
    Ok(sender)
}

async fn serve(world: Arc<World>, mut arrivals: UnboundedReceiver<Arrived>) {
    let last_shard = Rc::new(Cell::new(0));
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arrivals.recv() => {
                let Some((socket, peer)) = arrived else { break };
                let (world, last_shard) = (world.clone(), last_shard.clone());
                handshakes.spawn_local(async move {
                    // Counted by the listener.
                    let ended = admit(&world, socket, peer, &last_shard).await;
                    world.counters.handshaking.fetch_sub(1, Ordering::Relaxed);
                    if let Err(error) = ended {
                        tracing::warn!(addr = %peer, "Error accepting a client connection: {error}");
                    }
                });
            }
            Some(_) = handshakes.join_next() => {}
        }
    }
    while handshakes.join_next().await.is_some() {}
}

/// Shakes hands with a client and hands it to the next shard's thread.
async fn admit(
    world: &Arc<World>,
    socket: std::net::TcpStream,
    peer: SocketAddr,
    last_shard: &Cell<usize>,
) -> io::Result<()> {
    let acceptor = world.tls().ok_or(ErrorKind::ConnectionRefused)?;
    let mut session = acceptor.begin().map_err(io::Error::other)?;
    let socket = TcpStream::from_std(socket)?;
    match tokio::time::timeout(LIMIT, shake_hands(&socket, &mut session)).await {
        Ok(result) => result?,
        Err(_) => return Err(io::Error::other("no handshake in time")),
    }
    if listener::is_denied(world.config().protected_mode, peer) {
        world.counters.rejected.fetch_add(1, Ordering::Relaxed);
        session.write(&mut TcpWire(&socket), listener::DENIED)?;
        session.close(&mut TcpWire(&socket));
        return Ok(());
    }
    let socket = socket.into_std()?;
    last_shard.set(listener::next_shard(world, last_shard.get()));
    listener::serve_at(world, last_shard.get(), peer.to_string(), move || {
        let socket = TcpStream::from_std(socket)?;
        let laddr = listener::local_addr(&socket);
        let socket = TlsSocket::new(socket, session);
        Ok((Socket::Tls(Rc::new(socket)), laddr))
    });
    Ok(())
}

/// Goes on with a handshake, at either end, until it is done.
pub(super) async fn shake_hands(socket: &TcpStream, session: &mut Session) -> io::Result<()> {
    loop {
        match session.handshake(&mut TcpWire(socket)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        tokio::select! {
            ready = socket.readable() => ready?,
            ready = socket.writable(), if session.wants_write() => ready?,
        }
    }
}
