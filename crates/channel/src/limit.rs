//! The bounds of the channel, in one table; `docs/limits.md` is generated from it. A message is a few of these at most, whatever the
//! resources are.

use std::time::Duration;

fairway_model::limits! {
    "Channel between controller and proxies" {
        settings {}
        found {}
        fixed {
            /// Part of a resource in one piece.
            PIECE: usize = 64 << 10, Bytes, "The resource is sent in several pieces.", "";
            /// Size of a message from which on no further piece is added to it.
            MESSAGE: usize = 256 << 10, Bytes, "The rest is sent in further messages.", "";
            /// Largest message that is read.
            LARGEST_MESSAGE: usize = 1 << 20, Bytes, "The connection ends, and is made again.", "`fairway_channel_connections_total`";
            /// A resource, written out. The largest that users can cause is a host with all the routes of a large cluster.
            RESOURCE: usize = 64 << 20, Bytes, "The proxy refuses it, and its last good form stays.", "`fairway_channel_refused_resources`";
            /// Size of a resource from which on it is compressed. Below, the code tables cost what is saved.
            COMPRESS: usize = 512, Bytes, "It is compressed.", "";
            /// Size of a resource from which on the difference to its last form is sent, to a proxy that has that.
            PATCH: usize = 4 << 10, Bytes, "The controller keeps the last form, and sends the difference.", "";
            /// Names in one message about what a proxy holds.
            HELD: usize = 1000, Count, "The rest is sent in further messages.", "";
            /// Name of a resource that a proxy holds. Hosts have the longest: patterns of 4 KiB.
            NAME: usize = 32 << 10, Bytes, "The connection ends, and is made again.", "`fairway_channel_connections_total`";
            /// Names of all resources that a proxy holds.
            NAMES: usize = 128 << 20, Bytes, "The connection ends, and is made again.", "`fairway_channel_connections_total`";
            /// The same for all proxies together.
            ALL_NAMES: usize = 512 << 20, Bytes, "The connection ends, and is made again.", "`fairway_channel_connections_total`";
            /// Refused resources of a proxy of which the controller knows the reason.
            REFUSALS: usize = 1000, Count, "Only the log of the proxy has the reasons of further ones.", "";
            /// Resources of a proxy: more than anyone has, and few enough that their names fit into memory.
            RESOURCES: usize = 2_000_000, Count, "The connection ends, and is made again.", "`fairway_channel_connections_total`";
            /// Messages that wait for a slow peer.
            WAITING: usize = 4, Count, "The sender waits.", "";
            /// Reports of a proxy that wait for a slow controller, and reports of all proxies that wait in the controller.
            REPORTS: usize = 64, Count, "Further ones are lost.", "";
            /// A text that a peer says about itself or about a resource.
            TEXT: usize = 1024, Count, "The rest is left out.", "";
            /// Endpoints that a report names.
            ENDPOINTS: usize = 64, Count, "The rest is left out.", "";
            /// Limits of clients in one message about shares of them.
            SHARES: usize = 1024, Count, "The rest is sent in further messages; of a report, it is left out.", "";
            /// Scope of such a limit: the names of an Ingress or RoutePolicy.
            SCOPE: usize = 640, Bytes, "The limit stays divided evenly.", "";
            /// Limits of clients of which a controller deals shares.
            DEALT: usize = 4096, Count, "Further ones stay divided evenly.", "`fairway_channel_shared_limits`";
            /// The same, times the proxies of the controller.
            DEALT_CELLS: usize = 1 << 20, Count, "Further limits stay divided evenly.", "`fairway_channel_shared_limits`";
            /// The shortest pause between two reports of a proxy about its clients.
            REPORT_AGAIN: Duration = Duration::from_millis(10), Time, "The next one is read later.", "";
            /// Changes of which the names are remembered.
            LOG: usize = 4096, Count, "A proxy that is further behind has everything compared.", "";
            /// Proxies of one controller, and those that are still greeting it.
            PROXIES: usize = 4096, Count, "Further ones are refused, and try again.", "`fairway_channel_proxies`";
            /// How long a change waits for a proxy to serve it, before the next one is published.
            PATIENCE: Duration = Duration::from_secs(1), Time, "No change waits for the proxy before it has caught up.",
                "`fairway_channel_current_proxies`";
            /// Time for a connection to be set up, for its stream to begin, and for the first message on it.
            GREETING: Duration = Duration::from_secs(10), Time, "The connection ends, and is made again.", "";
            /// Connections to the Unix socket of a controller: one for each proxy of its pod.
            SOCKETS: usize = 64, Count, "Further ones are closed.", "";
            /// The first pause before another attempt to connect; each failure doubles it.
            AGAIN_FIRST: Duration = Duration::from_millis(50), Time, "It is tried again.", "";
            /// The longest pause between two attempts to connect. A connection that lasts as long has not failed.
            AGAIN_LONGEST: Duration = Duration::from_secs(5), Time, "It is tried again.", "";
            /// Bytes of a token of a ServiceAccount; they have a tenth of this.
            TOKEN: usize = 16 << 10, Bytes, "The proxy is refused.", "";
            /// Tokens that are checked at the same time.
            CLAIMS: usize = 4, Count, "Further ones wait.", "";
            /// Connections over TCP from one address of those who have not shown a certificate.
            STRANGERS_EACH: usize = 16, Count, "Further ones are closed.", "";
            /// The same from all addresses together.
            STRANGERS: usize = 512, Count, "Further ones are closed.", "";
            /// How long such a connection lasts: a handshake, and the check of a token.
            STRANGER: Duration = Duration::from_secs(30), Time, "It is closed.", "";
            /// How often each end of a connection over TCP asks whether the other one is there: a machine that is gone does not say so.
            ALIVE: Duration = Duration::from_secs(15), Time, "The other end is asked.", "";
            /// Time for the answer.
            ALIVE_ANSWER: Duration = Duration::from_secs(10), Time, "The connection ends, and is made again.", "";
            /// The pause after a renewal of a certificate that failed, and after a proof that was refused.
            PROOF_AGAIN: Duration = Duration::from_secs(60), Time, "It is tried again.", "";
            /// A file of certificates, or of a token.
            FILE: u64 = 1 << 20, Bytes, "It is not used, and the log says so.", "";
            /// The key of `--snapshot-key-file`; it has 32 bytes at least.
            SNAPSHOT_KEY: u64 = 4 << 10, Bytes, "The proxy does not start.", "";
            /// The pause after `--snapshot-file` was written, and 50 times as long as that took.
            SNAPSHOT_PAUSE: Duration = Duration::from_secs(10), Time, "What changed meanwhile is written then.", "`fairway_channel_file_timestamp_seconds`";
            /// How often the file of a state that does not change is marked as being the newest.
            SNAPSHOT_CONFIRM: Duration = Duration::from_secs(60), Time, "Its time of modification is set.", "";
        }
    }
}
