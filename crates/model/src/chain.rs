//! An error on one line, as logs show it.

use std::error::Error;
use std::fmt;

/// Prints an error with all its causes, `connecting: no route: network is down`. Skips a cause that its effect already quotes.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn causes_follow_and_none_is_said_twice() {
        let error = |texts: &[&'static str]| {
            let join = |source: Option<Box<Failed>>, text: &&'static str| Some(Box::new(Failed { text, source }));
            *texts.iter().rev().fold(None, join).unwrap()
        };
        for (texts, line) in [
            (&["one"][..], "one"),
            (&["one", "two", "three"], "one: two: three"),
            (&["one: two", "two", "three"], "one: two: three"),
            (&["one", "one", "two"], "one: two"),
        ] {
            assert_eq!(ErrorChain(&error(texts)).to_string(), line);
        }
    }
}
