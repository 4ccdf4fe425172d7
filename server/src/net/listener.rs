//! Where clients connect: the TCP addresses and the Unix socket of the configuration, on the control thread.
//!
//! New connections go to the shards' threads in turn; those with TLS shake hands on a thread of their own first. CONFIG SET of `port`,
//! `tls-port` or `bind` closes the TCP listeners and opens others; if that fails the old ones come back.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::handshake::{self, Arrived};
use super::{connection, socket, thread};
use crate::command::acl;
use crate::command::script::running;
use crate::config::Config;
use crate::world::{Control, World};

/// Listens where the configuration says. The tasks take TCP connections.
pub fn start(world: &Arc<World>) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let tasks = start_tcp(world)?;
    let unix = listen_on_path(&world.config())?;
    if let Some(listener) = unix {
        tokio::task::spawn_local(accept_unix(world.clone(), listener));
    }
    Ok(tasks)
}

fn start_tcp(world: &Arc<World>) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let (plain, encrypted) = {
        let config = world.config();
        (
            listen(&config, config.port)?,
            listen(&config, config.tls_port)?,
        )
    };
    let serve = |(listener, way)| tokio::task::spawn_local(accept(world.clone(), listener, way));
    let mut all: Vec<(TcpListener, Way)> = plain
        .into_iter()
        .map(|listener| (listener, Way::Plain))
        .collect();
    if !encrypted.is_empty() {
        let handshakes = handshake::start(world)?;
        let way = || Way::Tls(handshakes.clone());
        all.extend(encrypted.into_iter().map(|listener| (listener, way())));
    }
    Ok(all.into_iter().map(serve).collect())
}

/// What becomes of a connection that was accepted.
enum Way {
    /// It is served.
    Plain,
    /// It shakes hands there.
    Tls(UnboundedSender<Arrived>),
}

/// Listens anew after `change` of the configuration; if it cannot, the configuration and the listeners are as before.
pub async fn change(world: &Arc<World>, before: Config) -> anyhow::Result<()> {
    let (done, is_done) = tokio::sync::oneshot::channel();
    world.on_control(move |control| {
        tokio::task::spawn_local(async move {
            // The client may have gone.
            let _ = done.send(restart(&control, before).await);
        });
    });
    is_done.await?
}

async fn restart(control: &Rc<Control>, before: Config) -> anyhow::Result<()> {
    let old = control.listeners.take();
    for task in old {
        // Its socket is closed when it has ended.
        task.abort();
        let _ = task.await;
    }
    let started = start_tcp(&control.world);
    let (tasks, result) = match started {
        Ok(tasks) => (tasks, Ok(())),
        Err(error) => {
            control.world.change_config(|config| *config = before);
            // It was good.
            let _ = control.world.configure_tls();
            (start_tcp(&control.world).unwrap_or_default(), Err(error))
        }
    };
    control.listeners.replace(tasks);
    result
}

/// Stops listening before the process ends: whoever sees its connection end finds the port closed. On a thread that is not the
/// control thread.
pub fn stop(world: &World) {
    let (done, is_done) = std::sync::mpsc::channel();
    world.on_control(move |control| {
        let tasks = control.listeners.take();
        tokio::task::spawn_local(async move {
            for task in tasks {
                task.abort();
                let _ = task.await; // it was cancelled
            }
            // Nobody may wait any more.
            let _ = done.send(());
        });
    });
    // The process ends however busy the control thread is.
    let _ = is_done.recv_timeout(Duration::from_millis(200));
}

fn listen(config: &Config, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    if port == 0 || config.bind.is_empty() {
        return Ok(listeners);
    }
    for name in &config.bind {
        // A name with `-` in front may be missing on this machine.
        let (name, is_optional) = name
            .strip_prefix('-')
            .map_or((name.as_str(), false), |name| (name, true));
        let name = match name {
            "*" => "0.0.0.0",
            "::*" => "::",
            name => name,
        };
        let result = (name, port)
            .to_socket_addrs()
            .and_then(|mut addrs| {
                addrs
                    .next()
                    .ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
            })
            .and_then(|addr| listen_on(addr, config.tcp_backlog));
        match result {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_optional && error.kind() != std::io::ErrorKind::AddrInUse => {
                tracing::info!(address = name, %error, "not listening");
            }
            Err(error) => {
                anyhow::bail!("Failed listening on port {port} ({name}), aborting: {error}");
            }
        }
    }
    if listeners.is_empty() {
        anyhow::bail!("Failed listening on port {port}, aborting: no address to bind to");
    }
    Ok(listeners)
}

fn listen_on(addr: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// The Unix socket of the configuration, if it has one. A file of an earlier run is in the way and goes.
fn listen_on_path(config: &Config) -> anyhow::Result<Option<UnixListener>> {
    let Some(path) = &config.unixsocket else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| {
        anyhow::anyhow!("Failed opening Unix socket: bind: {path}: {error}")
    };
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = config.value("unixsocketperm").unwrap_or("0");
    let mode = u32::from_str_radix(mode, 8).unwrap_or(0);
    if mode != 0 {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(Some(listener))
}

/// Hands new connections through the Unix socket to the shards' threads in turn.
async fn accept_unix(world: Arc<World>, listener: UnixListener) {
    let mut next = 0;
    let path = world.config().unixsocket.clone().unwrap_or_default();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !is_welcome(&world) {
            let _ = socket.try_write(TOO_MANY);
            continue;
        }
        let Ok(socket) = socket.into_std() else {
            continue;
        };
        next = next_shard(&world, next);
        let addr = format!("{path}:0");
        serve_at(&world, next, addr.clone(), move || {
            Ok((socket::Socket::Unix(UnixStream::from_std(socket)?), addr))
        });
    }
}

/// Serves a client on a shard's thread, where `open` makes its socket and tells where it connected to.
pub(super) fn serve_at(
    world: &World,
    shard: usize,
    addr: String,
    open: impl FnOnce() -> std::io::Result<(socket::Socket, String)> + Send + 'static,
) {
    let serve = move || async move {
        match open() {
            Ok((socket, laddr)) => {
                connection::serve(thread::current(), socket, addr, laddr).await;
            }
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        }
    };
    world.links.send(
        shard,
        Box::new(move |_| {
            tokio::task::spawn_local(serve());
        }),
    );
}

/// The address that a client connected to.
pub(super) fn local_addr(socket: &TcpStream) -> String {
    let addr = socket.local_addr();
    addr.map_or_else(|_| String::new(), |addr| addr.to_string())
}

/// Protected mode: a server that anybody could use is for this machine alone.
pub(super) fn is_denied(is_protected: bool, peer: SocketAddr) -> bool {
    is_protected && acl::default_user().is_nopass && !peer.ip().to_canonical().is_loopback()
}

pub(super) const DENIED: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the \
    default user. In this mode connections are only accepted from the loopback interface. If you want to connect from external \
    computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the command 'CONFIG \
    SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is running, however \
    MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) \
    Alternatively you can just disable the protected mode by editing the Redis configuration file, and setting the protected mode \
    option to 'no', and then restarting the server. 3) If you started the server manually just for testing, restart it with the \
    '--protected-mode no' option. 4) Setup a an authentication password for the default user. NOTE: You only need to do one of \
    the above things in order for the server to start accepting connections from the outside.\r\n";
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// The next shard in turn that no script holds, unless all are held.
pub(super) fn next_shard(world: &World, before: usize) -> usize {
    let shards = world.links.shards();
    let mut next = (before + 1) % shards;
    let held = running::held_shards();
    if held.len() < shards {
        while held.contains(&next) {
            next = (next + 1) % shards;
        }
    }
    next
}

/// Counts a new connection, and says whether there is room for it.
fn is_welcome(world: &World) -> bool {
    world.counters.connections.fetch_add(1, Ordering::Relaxed);
    let maxclients = world.config().maxclients as usize;
    let connected = world.client_count() + world.counters.handshaking.load(Ordering::Relaxed);
    let has_room = connected < maxclients;
    if !has_room {
        world.counters.rejected.fetch_add(1, Ordering::Relaxed);
    }
    has_room
}

/// Hands new connections to the shards' threads in turn.
async fn accept(world: Arc<World>, listener: TcpListener, way: Way) {
    let mut next = 0;
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others may close meanwhile.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let is_plain = matches!(way, Way::Plain);
        if !is_welcome(&world) {
            // Before its handshake a client understands nothing.
            if is_plain {
                let _ = socket.try_write(TOO_MANY);
            }
            continue;
        }
        if is_plain && is_denied(world.config().protected_mode, peer) {
            world.counters.rejected.fetch_add(1, Ordering::Relaxed);
            let _ = socket.try_write(DENIED);
            continue;
        }
        let keepalive_s = world.config().tcp_keepalive;
        if let Err(error) = prepare(&socket, keepalive_s) {
            tracing::debug!(%error, "a connection went before it was served");
            continue;
        }
        let Ok(socket) = socket.into_std() else {
            continue;
        };
        match &way {
            Way::Plain => {
                next = next_shard(&world, next);
                serve_at(&world, next, peer.to_string(), move || {
                    let socket = TcpStream::from_std(socket)?;
                    let laddr = local_addr(&socket);
                    Ok((socket::Socket::Tcp(socket), laddr))
                });
            }
            Way::Tls(handshakes) => {
                world.counters.handshaking.fetch_add(1, Ordering::Relaxed);
                // The thread lives as long as this task.
                let _ = handshakes.send((socket, peer));
            }
        }
    }
}

fn prepare(socket: &TcpStream, keepalive_s: u64) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    if keepalive_s > 0 {
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(keepalive_s))
            .with_interval(Duration::from_secs((keepalive_s / 3).max(1)))
            .with_retries(3);
        socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_reaches_an_open_server() {
        let rows = [
            ("127.0.0.1:1", false),
            ("127.8.8.8:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("192.168.1.1:1", true),
            ("[2001:db8::1]:1", true),
        ];
        for (peer, want) in rows {
            let peer_addr = peer.parse().expect("an address");
            assert_eq!(is_denied(true, peer_addr), want, "{peer}");
            assert!(!is_denied(false, peer_addr), "{peer}");
        }
    }
}
