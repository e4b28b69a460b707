//! What all versions of HTTP have in common: received heads, and the words in them. Reading and writing them is up to each
//! version (`http1`).
//!
//! A head consists of ranges of its receive buffer; nothing is copied, and a reused head allocates nothing.

mod authority;
pub(crate) mod byte_class;
mod connection;
mod error;
mod field;
mod framing;
mod head;
mod request;
mod response;
mod status;
mod version;
mod view;

pub(crate) use self::byte_class::is_value as is_field_value;
pub(crate) use self::head::{HeadPart, LineEnd, Progress};
pub(crate) use self::response::LineEnds;

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
pub use fairway_model::{FieldName, KnownField, KnownSet};
