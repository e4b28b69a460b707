//! What a process says about its connection to other processes: a proxy about its controller, a controller about its proxies.

use std::fmt;
use std::sync::Arc;

use crate::metrics::ChannelFigure;

/// What there is to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelView {
    /// For `/metrics`.
    pub figures: Vec<ChannelFigure>,
    /// For `/debug/channel`.
    pub details: serde_json::Value,
}

/// Says it on every read.
#[derive(Clone)]
pub struct ChannelSource(Arc<dyn Fn() -> ChannelView + Send + Sync>);

impl ChannelSource {
    /// Creates a source.
    pub fn new(view: impl Fn() -> ChannelView + Send + Sync + 'static) -> Self {
        Self(Arc::new(view))
    }

    /// What there is to say now.
    pub(super) fn view(&self) -> ChannelView {
        (self.0)()
    }
}

impl fmt::Debug for ChannelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSource")
    }
}
