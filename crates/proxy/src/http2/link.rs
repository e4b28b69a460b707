//! The state that the streams of a connection share with the task that drives it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::block::Blocks;
use super::meter::Meter;
use crate::limit::{HTTP2_DEBT, HTTP2_DEBT_PER_SECOND};
use crate::net::tls;
use crate::record::TlsView;
use crate::stream::ServerTls;
use crate::timer::Millis;

/// The cost of a stream that its client resets before it has the response: the request went to an endpoint for nothing (rapid reset,
/// CVE-2023-44487).
// No limit: a cost; the limit is on the sum.
const RESET: u32 = 5;

/// The log's view of the TLS session, kept because `h2` owns the connection.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    protocol: &'static str,
    cipher: &'static str,
    server_name: Option<Box<str>>,
    resumed: bool,
}

impl TlsFacts {
    /// The facts about a session.
    pub(crate) fn of(tls: &ServerTls) -> Self {
        let TlsView { protocol, cipher, server_name, resumed } = tls::view(tls);
        Self { protocol, cipher, server_name: server_name.map(Into::into), resumed }
    }

    fn view(&self) -> TlsView<'_> {
        TlsView {
            protocol: self.protocol,
            cipher: self.cipher,
            server_name: self.server_name.as_deref(),
            resumed: self.resumed,
        }
    }
}

/// What a connection and its streams share.
#[derive(Debug)]
pub(crate) struct Link {
    tls: Option<TlsFacts>,
    pub(super) blocks: Rc<Blocks>,
    meter: RefCell<Meter>,
    /// The cost of frames and resets that led to nothing, less the credit since.
    debt: Cell<u32>,
    /// When the debt was last reduced for elapsed time.
    forgiven: Cell<Millis>,
    /// Whether the connection is to accept no more streams.
    leaves: Cell<bool>,
    streams: Cell<u32>,
    /// Wakes the task that drives the connection.
    driver: RefCell<Option<Waker>>,
    read: Cell<u64>,
    written: Cell<u64>,
    blocked: Cell<bool>,
    lingers: Cell<bool>,
}

impl Link {
    /// The link of a new connection.
    pub(crate) fn new(tls: Option<TlsFacts>, blocks: Rc<Blocks>, now: Millis) -> Self {
        Self::with_meter(tls, blocks, now, Meter::new())
    }

    /// The link of a new connection to an endpoint.
    pub(crate) fn to_endpoint(blocks: Rc<Blocks>, now: Millis) -> Self {
        Self::with_meter(None, blocks, now, Meter::of_server())
    }

    fn with_meter(tls: Option<TlsFacts>, blocks: Rc<Blocks>, now: Millis, meter: Meter) -> Self {
        Self {
            tls,
            blocks,
            meter: RefCell::new(meter),
            debt: Cell::new(0),
            forgiven: Cell::new(now),
            leaves: Cell::new(false),
            streams: Cell::new(0),
            driver: RefCell::new(None),
            read: Cell::new(0),
            written: Cell::new(0),
            blocked: Cell::new(false),
            lingers: Cell::new(false),
        }
    }

    /// The log's view of the TLS session.
    pub(crate) fn tls_view(&self) -> Option<TlsView<'_>> {
        self.tls.as_ref().map(TlsFacts::view)
    }

    /// Makes the current task the one to wake.
    pub(crate) fn drive(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
    }

    /// Begins a stream.
    pub(crate) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    /// Ends a stream.
    pub(crate) fn end_stream(&self) {
        self.streams.set(self.streams.get() - 1);
        if self.streams.get() == 0 {
            self.wake();
        }
    }

    /// Number of open streams.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Whether a stream is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.streams.get() > 0
    }

    /// Ends the connection once its streams have ended.
    pub(crate) fn leave(&self) {
        if !self.leaves.replace(true) {
            self.wake();
        }
    }

    /// Whether the connection is to end.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.get()
    }

    /// Charges for a stream that its client reset too early.
    pub(crate) fn charge_reset(&self) {
        self.charge(RESET);
        if self.is_abused() {
            self.wake();
        }
    }

    /// Credits a frame that passed on `bytes` of a message: its receiver may answer with a few frames of its own.
    pub(super) fn credit(&self, bytes: usize) {
        let worth = 2 + u32::try_from(bytes / 2048).unwrap_or(u32::MAX);
        self.debt.set(self.debt.get().saturating_sub(worth));
    }

    /// Reduces the debt for the time that has passed.
    pub(crate) fn forgive(&self, now: Millis) {
        let seconds = now.saturating_sub(self.forgiven.get()) / 1000;
        if seconds > 0 {
            let worth = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(HTTP2_DEBT_PER_SECOND);
            self.debt.set(self.debt.get().saturating_sub(worth));
            self.forgiven.set(now);
        }
    }

    /// Whether the peer causes more work than a peer needs to.
    pub(crate) fn is_abused(&self) -> bool {
        self.debt.get() > HTTP2_DEBT
    }

    fn charge(&self, cost: u32) {
        self.debt.set(self.debt.get().saturating_add(cost));
    }

    /// Whether the peer's first SETTINGS have arrived.
    pub(crate) fn is_settled(&self) -> bool {
        self.meter.borrow().is_settled()
    }

    /// Whether the peer has announced that it takes no more streams (GOAWAY).
    pub(super) fn peer_leaves(&self) -> bool {
        self.meter.borrow().leaves()
    }

    /// Wakes the task that drives the connection.
    pub(crate) fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    /// Notes what was read.
    pub(super) fn has_read(&self, bytes: &[u8]) {
        self.read.set(self.read.get() + bytes.len() as u64);
        let cost = self.meter.borrow_mut().read(bytes);
        if cost > 0 {
            self.charge(cost);
        }
    }

    /// Notes what was written, or that nothing can be written now.
    pub(super) fn has_written(&self, count: Option<usize>) {
        self.blocked.set(count.is_none());
        self.written.set(self.written.get() + count.unwrap_or(0) as u64);
    }

    /// Notes that the proxy has closed its side and only waits for the client to close.
    pub(super) fn linger(&self) {
        self.lingers.set(true);
    }

    /// Bytes read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes written so far, if the kernel takes no more at the moment.
    pub(crate) fn blocked_at(&self) -> Option<u64> {
        self.blocked.get().then(|| self.written.get())
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        self.meter.borrow().in_head()
    }

    /// Whether the proxy only waits for the client to close.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.get()
    }
}
