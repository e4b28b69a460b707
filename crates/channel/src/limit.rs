//! The bounds of the channel. A message is a few of these at most, whatever the resources are.

use std::time::Duration;

/// Bytes of a body in one piece; a resource that is larger is sent in several.
pub(crate) const PIECE: usize = 64 << 10;

/// Bytes of a message from which on no further piece is added to it.
pub(crate) const MESSAGE: usize = 256 << 10;

/// Bytes of the largest message that is read.
pub(crate) const LARGEST_MESSAGE: usize = 1 << 20;

/// Bytes of a resource, written out. The largest that users can cause is a host with all the routes of a large cluster.
pub(crate) const RESOURCE: usize = 64 << 20;

/// Bytes of a body from which on it is compressed. Below, the code tables cost what is saved.
pub(crate) const COMPRESS: usize = 512;

/// Names in one message about what a proxy holds.
pub(crate) const HELD: usize = 1000;

/// Resources of a proxy: more than anyone has, and few enough that their names fit into memory.
pub(crate) const RESOURCES: usize = 2_000_000;

/// Messages that wait for a slow peer.
pub(crate) const WAITING: usize = 4;

/// Reports that wait for a slow controller; with more, the newest are lost.
pub(crate) const REPORTS: usize = 64;

/// Bytes of a text that a peer says about itself or about a resource.
pub(crate) const TEXT: usize = 1024;

/// Endpoints that a report names.
pub(crate) const ENDPOINTS: usize = 64;

/// Changes of which the names are remembered. A proxy that is further behind has everything compared.
pub(crate) const LOG: usize = 4096;

/// Proxies of one controller.
pub(crate) const PROXIES: usize = 4096;

/// How long a change waits for a proxy to serve it. A proxy that takes longer is not waited for again before it has caught up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Time for a connection to be set up, and for the first words on it.
pub(crate) const GREETING: Duration = Duration::from_secs(10);

/// The first and the longest pause between two attempts to connect.
pub(crate) const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Bytes of a token of a ServiceAccount; they have a tenth of this.
pub(crate) const TOKEN: usize = 16 << 10;

/// Tokens that are checked at the same time.
pub(crate) const CLAIMS: usize = 4;

/// Connections over TCP of those who have not shown a certificate, from one address and together. Who opens more is refused, and nobody
/// else.
pub(crate) const STRANGERS: (usize, usize) = (16, 512);

/// How long such a connection lasts: a handshake, and the check of a token.
pub(crate) const STRANGER: Duration = Duration::from_secs(30);

/// How often each end of a connection over TCP asks whether the other one is there, and how long it waits for the answer: a machine that
/// is gone does not say so.
pub(crate) const ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// The pause after a renewal of a certificate that failed, and after a proof that was refused.
pub(crate) const PROOF_AGAIN: Duration = Duration::from_secs(60);

/// Bytes of a file of certificates, or of a token.
pub(crate) const FILE: u64 = 1 << 20;
