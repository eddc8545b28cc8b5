//! Accepts clients and peers, on the socket that they share.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::threads::Threads;
use crate::gateway::Gateway;
use crate::host::register::Kept;
use crate::transport::client_stream::ClientStream;
use crate::transport::listener::{Listening, accept_tcp, accept_unix, is_from_this_process};
use crate::transport::spares::{Spares, is_want_of_descriptors};

/// The listening socket, for whom it may concern.
/// A connection that was accepted.
const ACCEPTED: &str = "an accepted connection";

/// What connections come to.
trait Accepts {
    type Stream: AsFd + Send;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Whether it is served.
    fn is_welcome(stream: &Self::Stream) -> bool;
}

impl Accepts for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let stream = accept_tcp(self).await?;
        // Replies are whole messages: waiting for more gains nothing.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn is_welcome(_stream: &TcpStream) -> bool {
        true
    }
}

impl Accepts for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        accept_unix(self).await
    }

    // spec: c-api 3.3: only this process may connect.
    fn is_welcome(stream: &UnixStream) -> bool {
        is_from_this_process(stream).unwrap_or(false)
    }
}

/// What accepts, and what ends it.
pub(super) struct Accepting {
    /// Accepts for ever.
    pub(super) task: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Nobody listens any more behind it, whoever has the socket still: a runtime that is left as it is, or a child that was forked
    /// without an exec, would keep the address until it ends.
    pub(super) end: Box<dyn FnOnce() + Send>,
}

impl Accepting {
    fn new<L: Accepts + AsFd + Send + Sync + 'static>(
        listener: Kept<L>,
        gateway: Arc<Gateway>,
        spares: Arc<Spares>,
    ) -> Accepting
    where
        Kept<L::Stream>: ClientStream,
    {
        let listener = Arc::new(listener);
        let listening = Arc::clone(&listener);
        Accepting {
            task: Box::pin(async move { accept_from(&**listener, &gateway, &spares).await }),
            end: Box::new(move || {
                if let Ok(listener) = listening.checked() {
                    // It is closed next, or left.
                    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
                }
            }),
        }
    }
}

/// Has connections accepted.
pub(super) fn accept(
    threads: &Threads,
    listening: Listening,
    gateway: Arc<Gateway>,
    spares: Arc<Spares>,
) -> io::Result<Accepting> {
    let _entered = threads.sql().enter();
    Ok(match listening {
        Listening::Tcp(listener) => Accepting::new(listener.try_map(TcpListener::from_std)?, gateway, spares),
        Listening::Unix(listener) => {
            Accepting::new(listener.try_map(UnixListener::from_std)?, gateway, spares)
        }
    })
}

async fn accept_from<A: Accepts>(listener: &A, gateway: &Arc<Gateway>, spares: &Arc<Spares>)
where
    Kept<A::Stream>: ClientStream,
{
    let register = spares.register();
    loop {
        spares.until_room().await;
        match listener.next().await {
            Ok(stream) if !A::is_welcome(&stream) => {}
            Ok(stream) => match (Kept::new(stream, &register, ACCEPTED), spares.judge()) {
                (Ok(stream), Some(unproved)) => gateway.serve_member(stream, unproved),
                (Ok(stream), None) => gateway.serve(stream),
                // Others have closed it already.
                (Err(error), _) => tracing::warn!(%error, "accept"),
            },
            Err(error) if is_want_of_descriptors(&error) && spares.give_up() => {
                tracing::warn!(%error, "no descriptors are left: only members are taken");
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                spares.make_room().await;
            }
        }
    }
}
