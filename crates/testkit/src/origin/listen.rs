//! Starts an origin: the socket and the accept loop.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::serve::{Service, serve};
use super::{Connection, Cursors, Fault, Held, Orders, Origin, OriginBuilder, Record, Seen};

pub(super) fn start(builder: OriginBuilder) -> Origin {
    let OriginBuilder { name, bind, fault, when, reply, tls } = builder;
    let socket = bound(bind).unwrap_or_else(|error| panic!("origin {name} at {bind}: {error}"));
    let mut origin = Origin {
        address: socket.local_addr().expect("a bound socket has an address"),
        name,
        record: Arc::new(Record { seen: Mutex::new(Seen::default()), changed: watch::Sender::new(()) }),
        orders: watch::Sender::new(Orders::default()),
        accepting: None,
        _held: Vec::new(),
        cursors: Mutex::new(Cursors::default()),
    };
    match fault {
        // A bound socket that does not listen keeps others from taking the port.
        Some(Fault::Refuse) => origin._held.push(Box::new(socket)),
        Some(Fault::Unreachable) => origin._held = full_backlog(socket, origin.address),
        _ => {
            let listener = socket.listen(1024).expect("a bound socket can listen");
            let tls = tls.map(|config| Arc::new(config).into());
            let service = Service { record: Arc::clone(&origin.record), fault, when, reply, tls };
            let accepting = tokio::spawn(accept(listener, Arc::new(service), origin.orders.subscribe()));
            origin.accepting = Some(accepting.abort_handle());
        }
    }
    origin
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A listener whose connection queue is full and never drained: Linux drops every further SYN.
fn full_backlog(socket: TcpSocket, address: SocketAddr) -> Vec<Held> {
    // Linux queues one connection more than the backlog.
    let listener = socket.listen(0).expect("a bound socket can listen");
    let filler = std::net::TcpStream::connect(address).expect("the queue has room for one");
    filler.set_nonblocking(true).expect("a socket can be made non-blocking");
    let filler = TcpStream::from_std(filler).expect("a non-blocking socket");
    vec![Box::new(listener), Box::new(filler)]
}

/// Accepts until ordered to stop; the connections continue until this task is aborted.
async fn accept(listener: TcpListener, service: Arc<Service>, orders: watch::Receiver<Orders>) {
    let mut connections = JoinSet::new();
    let mut stop = orders.clone();
    loop {
        tokio::select! {
            _ = stop.wait_for(|orders| orders.stopped) => break,
            accepted = listener.accept() => {
                // An error concerns a connection that is already gone.
                let Ok((stream, _)) = accepted else { continue };
                let number = service.record.edit(|seen| {
                    seen.connections.push(Connection::default());
                    seen.connections.len() as u64
                });
                connections.spawn(serve(stream, number, Arc::clone(&service), orders.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
