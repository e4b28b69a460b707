//! Directives that change a backend's response: its age, its cookies, texts in its pages.

use fairway_model::{CookieFlags, Cookies, FieldEdit, ResponseEdit, SearchRegex};

use super::One;
use super::field::ORDINARY;
use crate::ingress::snippet::Fault;
use crate::value::{NginxTime, Value};

/// The longest text to search for, in bytes. Each byte of a body may be compared with that many.
// No limit of its own: a longer text refuses its snippet.
const SEARCHED: usize = 1024;

impl One<'_> {
    pub(super) fn expires(&mut self, text: &str) -> Result<(), Fault> {
        let control = match text {
            "off" => {
                self.told("the backend's Expires and Cache-Control stay");
                self.level.expires = Some(Vec::new());
                return Ok(());
            }
            "epoch" => "no-cache".to_owned(),
            "max" => "max-age=315360000".to_owned(),
            text => match text.strip_prefix('-') {
                Some(past) => {
                    self.expected(NginxTime::parse(past), "a time, epoch, max or off")?;
                    "no-cache".to_owned()
                }
                None => {
                    let time = self.expected(NginxTime::parse(text), "a time, epoch, max or off")?;
                    format!("max-age={}", time.0.as_secs())
                }
            },
        };
        let set = |name: &str, value: &str| FieldEdit::set(name, value).map_err(|_| self.fault("no field"));
        let edits = [set("Expires", "")?, set("Cache-Control", &control)?];
        let edits = edits.map(|edit| ResponseEdit { edit, statuses: ORDINARY.to_vec(), types: Vec::new() });
        self.told(format!("ordinary responses have Cache-Control: {control}, and no Expires"));
        self.level.expires = Some(edits.into());
        Ok(())
    }

    pub(super) fn cookie_flags(&mut self) -> Result<(), Fault> {
        let arguments = self.directive.arguments.clone();
        let Some((cookies, flags)) = arguments.split_first() else { return Err(self.fault("expected a cookie")) };
        if cookies == "off" && flags.is_empty() {
            self.told("the attributes of the backend's cookies stay");
            self.level.cookie_flags = Some(Vec::new());
            return Ok(());
        }
        self.literal(cookies)?;
        let mut own = CookieFlags {
            cookies: match cookies.strip_prefix('~') {
                Some("") => Cookies::All,
                Some(pattern) => {
                    let pattern = format!("(?i){pattern}").parse::<SearchRegex>().ok();
                    Cookies::Matching(self.expected(pattern, "a regex that runs in linear time after ~")?)
                }
                None => Cookies::Named((&**cookies).into()),
            },
            ..CookieFlags::default()
        };
        for flag in flags {
            let flag = flag.to_ascii_lowercase();
            match &*flag {
                "secure" => own.secure = Some(true),
                "nosecure" => own.secure = Some(false),
                "httponly" => own.http_only = Some(true),
                "nohttponly" => own.http_only = Some(false),
                "samesite=strict" => own.same_site = Some("Strict".into()),
                "samesite=lax" => own.same_site = Some("Lax".into()),
                "samesite=none" => own.same_site = Some("None".into()),
                "nosamesite" => own.same_site = Some("".into()),
                _ => {
                    return Err(self.fault(
                        "expected secure, httponly, samesite=strict, =lax or =none, or one of them with no in front",
                    ));
                }
            }
        }
        self.told(format!("the backend's cookies {cookies} have the attributes {}", flags.join(", ")));
        self.level.cookie_flags.get_or_insert_default().push(own);
        Ok(())
    }

    pub(super) fn substitute(&mut self) -> Result<(), Fault> {
        let [from, to] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        if from.is_empty() || from.len() > SEARCHED || from.contains('$') {
            let message = format!("expected a text to search for of at most {SEARCHED} bytes, without variables");
            return Err(self.fault(message));
        }
        let others: usize = self.level.substitutes.iter().map(|(from, _)| from.len()).sum();
        if others + from.len() > SEARCHED {
            return Err(self.fault(format!("expected at most {SEARCHED} bytes of texts to search for in all")));
        }
        let template = self.template(&to, false)?;
        self.told(format!("replace {from:?} in pages by {to:?}"));
        self.level.substitutes.push((from.into(), template));
        Ok(())
    }
}
