//! What all versions of HTTP have in common: received heads, the words in them, and heads as text, the form in which the proxy also holds
//! HTTP/2 heads. Each version reads them from its connections in its own way.
//!
//! A head consists of ranges of its receive buffer; nothing is copied, and a reused head allocates nothing.

mod authority;
pub(crate) mod byte_class;
mod connection;
mod error;
mod field;
mod field_line;
mod framing;
mod head;
mod request;
mod response;
mod sink;
mod status;
mod version;
mod view;
pub(crate) mod websocket;
mod write;

pub(crate) use self::byte_class::is_value as is_field_value;
pub(crate) use self::connection::After;
pub(crate) use self::field_line::parse_line;
pub(crate) use self::head::{HeadPart, LineEnd, Progress};
pub(crate) use self::response::{LineEnds, ResponsePart};

pub use self::authority::Authority;
pub use self::connection::{ConnectionOptions, Upgrade};
pub use self::error::{BodyError, HeadError, InvalidField};
pub use self::field::{Field, Fields, Span};
pub use self::framing::{BodyForm, Framing, Reframed};
pub use self::head::{HeadLimits, NameRules, Parsed, Spanned};
pub use self::request::{Method, RequestHead, TargetForm};
pub use self::response::ResponseHead;
pub use self::status::reason;
pub use self::version::Version;
pub use self::view::FieldsView;
pub use self::write::{CONTINUE, HeadWriter, PreparedField};
pub use fairway_model::{FieldName, KnownField, KnownSet};
