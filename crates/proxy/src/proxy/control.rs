//! The proxy's work besides serving requests: the admin listener, name resolution, health checks and stapling, on a dedicated thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use fairway_model::ErrorChain;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{AdminServer, AdminSource};
use crate::limit::ACCEPT_PAUSE;
use crate::net::resolve::{AddressPolicy, Resolved, Resolver};

/// The thread; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The parts of the control thread before it runs.
#[derive(Debug)]
pub(crate) struct PreparedControl {
    /// Taken out when it runs or is dropped.
    runtime: Option<Runtime>,
    admin: Option<AdminServer>,
    /// The address of the admin listener if it is still in use.
    later: Option<SocketAddr>,
    resolver: Option<(Arc<Resolver>, mpsc::Receiver<Resolved>)>,
    address: Option<SocketAddr>,
    /// Where requests may be sent, given the proxy's own address.
    policy: AddressPolicy,
}

impl PreparedControl {
    /// Binds the admin listener and reads the configuration of the resolver. Without the latter, names stay unresolved, which is
    /// reported and affects nothing else.
    ///
    /// # Errors
    /// If the address is in use, unless `waits` is set, or if no event loop can be created.
    pub(crate) fn new(admin: Option<SocketAddr>, policy: AddressPolicy, waits: bool) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // The caller may run on its own event loop, where another one must not block.
        let bind = || runtime.block_on(async { Some(AdminServer::bind(admin?).await) });
        let bound: Option<io::Result<AdminServer>> =
            thread::scope(|scope| scope.spawn(bind).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let mut this = Self { runtime: Some(runtime), admin: None, later: None, resolver: None, address: None, policy };
        match bound.transpose() {
            // The previous process holds the port for as long as it serves.
            Err(error) if waits && error.kind() == io::ErrorKind::AddrInUse => this.later = admin,
            bound => this.admin = bound?,
        }
        this.address = this.admin.as_ref().map(AdminServer::local_address).transpose()?;
        this.policy.own.extend(this.address);
        let entered = this.runtime.as_ref().map(Runtime::enter);
        let resolver = Resolver::start(this.policy.clone());
        drop(entered);
        match resolver {
            Ok((resolver, changes)) => this.resolver = Some((Arc::new(resolver), changes)),
            Err(error) => tracing::error!(error = %ErrorChain(&error), "names of backends cannot be resolved"),
        }
        Ok(this)
    }

    /// The address of the admin listener.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where requests may be sent.
    pub(crate) fn policy(&self) -> AddressPolicy {
        self.policy.clone()
    }

    /// The resolver, which must be given every change.
    pub(crate) fn resolver(&self) -> Option<Arc<Resolver>> {
        self.resolver.as_ref().map(|(resolver, _)| resolver.clone())
    }

    /// Runs until the result is dropped. `follow` applies the resolved addresses, `others` does the remaining work.
    ///
    /// # Errors
    /// If no thread can be created.
    pub(crate) fn run<F>(
        mut self,
        source: AdminSource,
        away: watch::Receiver<bool>,
        follow: impl FnOnce(mpsc::Receiver<Resolved>) -> F,
        others: impl FnOnce() + Send + 'static,
    ) -> io::Result<Control>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (runtime, admin, resolver) = (self.runtime.take(), self.admin.take(), self.resolver.take());
        let address = self.later.or(self.address);
        let Some(runtime) = runtime else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let following = resolver.map(|(_, changes)| follow(changes));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Some(address) = address {
                    tokio::spawn(administer(admin, address, Arc::new(source), away));
                }
                if let Some(following) = following {
                    tokio::spawn(following);
                }
                others();
                let _ = stopped.await;
            });
            runtime.shutdown_background();
        })?;
        Ok(Control { stop: Some(stop), thread: Some(thread) })
    }
}

/// Runs the admin server, but not while another process serves in place of this one (`away`), and only once the port is free.
async fn administer(
    mut admin: Option<AdminServer>,
    address: SocketAddr,
    source: Arc<AdminSource>,
    mut away: watch::Receiver<bool>,
) {
    loop {
        if away.wait_for(|away| !away).await.is_err() {
            return;
        }
        let server = match admin.take() {
            Some(server) => server,
            None => match AdminServer::bind(address).await {
                Ok(server) => {
                    tracing::info!(%address, "health and metrics");
                    server
                }
                Err(error) => {
                    tracing::debug!(%error, %address, "health and metrics can't be asked for yet");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            () = server.run(source.clone()) => {}
            _ = away.wait_for(|away| *away) => {}
        }
    }
}

/// Dropping a runtime would wait for its blocking tasks, which the caller's event loop forbids.
impl Drop for PreparedControl {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
