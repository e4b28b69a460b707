//! Asks an authentication service whether a request may go on. The request to it is a try on the endpoint side, like those that
//! follow, but without a body or with one that was read before, and nothing of its answer reaches the client but what the route says. A service of ext_authz is called
//! beside the endpoint side.
//!
//! Everything that goes wrong denies.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fairway_model::decision::{self, Forwarding, Plan, Start, Step, Wait};
use fairway_model::{
    Action, AuthAnswer, AuthCache, AuthGiven, AuthProtocol, BasicAuth, ByteLimit, CheckChange, CheckDenied, CheckField,
    CheckVerdict, ConfiguredName, ExternalAuth, FieldLine, Fields, GrpcAuth, KnownSet, Respond, Subrequest,
};

use super::side::{Question, Reply};
use super::transfer::Gaps;
use super::tries::{Attempt, OfExchange, Serves};
use super::{Allowance, Exchange, grpc};
use crate::auth_cache::{AuthKey, KeptAnswer};
use crate::balance::Ask;
use crate::digest::{self, Proof};
use crate::error::{Failure, Side};
use crate::ext_authz::{self, Checked, CheckedFields};
use crate::http::{FieldsView, Framing, KnownField, Method};
use crate::limit::AUTH_TRIES;
use crate::message::UpstreamRequest;
use crate::password::{challenge, credentials};
use crate::pipeline;
use crate::timer::Timers;
use crate::upstream::{Service, Way};

impl<'a> Exchange<'a> {
    /// Asks the services for which the plan waits, one after the other, and decides on with their answers.
    ///
    /// # Errors
    /// If the client has gone meanwhile, or a service can't be asked.
    pub(super) async fn wait(&mut self, mut plan: Plan<'a>) -> Result<(Step<'a>, Option<Rc<Service>>), Failure> {
        loop {
            let asked = match plan.step {
                Step::Wait(Wait::ExternalAuth(auth)) => self.ask(auth).await,
                Step::Wait(Wait::Password(auth)) => self.check_password(auth).await,
                _ => return Err(Failure::Authentication(None)),
            };
            let busy = asked == Ok(AuthAnswer::Failed) && matches!(plan.step, Step::Wait(Wait::Password(_)));
            let (answer, failure) = match asked {
                Ok(answer) => (answer, None),
                Err(failure @ (Failure::Shutdown | Failure::WrongPasswords | Failure::AuthenticationTimeout)) => {
                    return Err(failure);
                }
                Err(failure) if failure.side() == Side::Downstream => return Err(failure),
                Err(failure) => (AuthAnswer::Failed, Some(failure.reason())),
            };
            let service;
            (plan, service) = self.decide_after(plan, answer);
            self.plan = Some(plan);
            match plan.step {
                Step::Wait(_) => {}
                Step::Fail(decision::Failure::Authentication) if busy => return Err(Failure::PasswordsBusy),
                Step::Fail(decision::Failure::Authentication) => return Err(Failure::Authentication(failure)),
                step => return Ok((step, service)),
            }
        }
    }

    /// Decides on with an answer that is kept, if there is one: without the memory that asking takes.
    pub(super) fn recall(&mut self, plan: Plan<'a>) -> Option<(Plan<'a>, Option<Rc<Service>>)> {
        let Step::Wait(Wait::ExternalAuth(auth)) = plan.step else { return None };
        let asks = auth.subrequest()?;
        let key = self.cache_key(auth, asks, asks.cache.as_ref()?).ok()?;
        let answer = self.remember(&key);
        self.scratch.value = key.into_memory();
        let answer = answer?;
        // What fails here fails again when the service is asked.
        self.expand_sign_in(auth, answer).ok()?;
        let (plan, service) = self.decide_after(plan, answer);
        self.plan = Some(plan);
        Some((plan, service))
    }

    /// Whether the request has the name and the password of a user. An unknown user takes as long as a known one. A client with too many
    /// wrong passwords has no further try for a while, but what a worker knows to be right passes.
    async fn check_password(&mut self, auth: &BasicAuth) -> Result<AuthAnswer, Failure> {
        let client = self.scratch.decision.client.address();
        let most = self.live.snapshot.settings().wrong_passwords;
        let shard = &self.facts.shard;
        let may_try = || most.is_none_or(|most| shard.common.ledger.may_try(&auth.users, client, most));
        let head = self.client.head();
        if auth.digest {
            let given = head.filter(|head| {
                let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
                fields.all(KnownField::Authorization).next().is_some()
            });
            let proof = match given {
                None => Proof::Missing,
                Some(_) if !may_try() => return Err(Failure::WrongPasswords),
                Some(head) => {
                    let view = head.parsed.view(head.bytes);
                    digest::check(auth, view.fields, view.method, view.raw_target)
                }
            };
            if let (Proof::Wrong, Some(most)) = (proof, most) {
                shard.common.ledger.note_wrong(&auth.users, client, most);
            }
            if proof == Proof::Right {
                return Ok(AuthAnswer::Allowed);
            }
            self.scratch.challenge = digest::challenge(auth, proof == Proof::Stale);
            return Ok(AuthAnswer::Unauthorized);
        }
        let given = head.and_then(|head| credentials(FieldsView { fields: head.parsed.fields(), bytes: head.bytes }));
        let passwords = &shard.passwords;
        let right = match &given {
            None => Some(false),
            Some((user, password)) => match (auth.users.hash_of(user), auth.users.any_hash()) {
                (Some(hash), _) => passwords.check(client, hash, password, &may_try).await,
                (None, Some(decoy)) => passwords.check(client, decoy, password, &may_try).await.map(|_| false),
                (None, None) => Some(false),
            },
        };
        if let (Some(false), Some(_), Some(most)) = (right, &given, most) {
            shard.common.ledger.note_wrong(&auth.users, client, most);
        }
        match right {
            Some(true) => Ok(AuthAnswer::Allowed),
            Some(false) => {
                self.scratch.challenge = challenge(auth);
                Ok(AuthAnswer::Unauthorized)
            }
            None if !may_try() => Err(Failure::WrongPasswords),
            None => Ok(AuthAnswer::Failed),
        }
    }

    /// What the service says about the request.
    ///
    /// # Errors
    /// If it can't be asked, or the client has gone meanwhile.
    async fn ask(&mut self, auth: &'a ExternalAuth) -> Result<AuthAnswer, Failure> {
        let body = match auth.body() {
            Some(most) => Box::pin(self.read_whole(most)).await?,
            None => Vec::new(),
        };
        self.client.leave_body(true);
        let answer = match self.ask_or_remember(auth, &body).await {
            Err(failure) if failure.is_timeout() && self.is_late() => Err(Failure::AuthenticationTimeout),
            answer => answer,
        };
        if answer == Err(Failure::AuthenticationTimeout) {
            self.endpoint.disconnect();
        }
        self.client.leave_body(false);
        // Nothing of this may be taken for a try that concerns the client's request.
        self.endpoint.begin();
        self.scratch.tried.clear();
        self.limits = Gaps::NONE;
        let answer = answer?;
        self.expand_sign_in(auth, answer)?;
        Ok(answer)
    }

    /// How long the request may still take until the head of its answer, if its route limits that.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let Action::Forward(forward) = &self.route()?.action else { return None };
        forward.policy.response_within.map(|whole| whole.saturating_sub(self.dispatched.elapsed()))
    }

    fn is_late(&self) -> bool {
        self.time_left() == Some(Duration::ZERO)
    }

    /// Makes the URL at which a client that the answer does not admit has to sign in.
    fn expand_sign_in(&mut self, auth: &ExternalAuth, answer: AuthAnswer) -> Result<(), Failure> {
        if let (AuthAnswer::Unauthorized, Some(sign_in)) = (answer, auth.sign_in()) {
            let mut location = std::mem::take(&mut self.scratch.decision.location);
            location.clear();
            let expanded = self.expand_template(Serves::Request, sign_in, &mut location);
            self.scratch.decision.location = location;
            expanded?;
        }
        Ok(())
    }

    /// Decides on with the answer.
    fn decide_after(&mut self, plan: Plan<'a>, answer: AuthAnswer) -> (Plan<'a>, Option<Rc<Service>>) {
        let (live, facts, scratch) = (self.live, self.facts, &mut *self.scratch);
        let Some(head) = self.client.head() else { return (plan, None) };
        facts.listener.with_resource(|listener| {
            let origin = pipeline::Origin {
                arrival: &facts.arrival,
                table: &listener.table,
                asked: facts.asked.as_deref(),
                listener: facts.chosen.as_deref(),
            };
            pipeline::decide(
                &facts.shard,
                live,
                head,
                origin,
                Start::Wait(plan, answer),
                &mut scratch.decision,
                &mut scratch.open,
            )
        })
    }

    /// What the service says, or has said about a request with the same key.
    async fn ask_or_remember(&mut self, auth: &'a ExternalAuth, body: &[u8]) -> Result<AuthAnswer, Failure> {
        let cached = auth.subrequest().and_then(|asks| Some((asks, asks.cache.as_ref()?)));
        let Some((asks, cache)) = cached else { return self.ask_endpoints(auth, body).await.map(|(answer, _)| answer) };
        let key = self.cache_key(auth, asks, cache)?;
        if let Some(answer) = self.remember(&key) {
            self.scratch.value = key.into_memory();
            return Ok(answer);
        }
        let shard = &self.facts.shard;
        let before = self.scratch.challenge.len();
        let (answer, lasts) = self.ask_endpoints(auth, body).await?;
        if !lasts.is_zero() {
            let given = self.scratch.decision.given.clone().filter(|_| answer == AuthAnswer::Allowed);
            let challenge = self.scratch.challenge[before..].to_vec();
            let (now, until) = (shard.timers.now(), shard.timers.after(lasts));
            shard.auth_answers.keep(&key, KeptAnswer { answer, given, challenge }, now, until);
        }
        Ok(answer)
    }

    /// What the service has said about a request with the same key, with what that contributes to other messages.
    fn remember(&mut self, key: &AuthKey) -> Option<AuthAnswer> {
        let shard = &self.facts.shard;
        let KeptAnswer { answer, given, challenge } = shard.auth_answers.find(key, shard.timers.now())?;
        self.scratch.decision.given = given;
        self.scratch.challenge.extend(challenge);
        Some(answer)
    }

    /// What requests have in common that share an answer: host, path of the rule, service, and the value of the key. It is made in the
    /// memory for values of templates, which is given back with it.
    fn cache_key(&mut self, auth: &ExternalAuth, asks: &Subrequest, cache: &AuthCache) -> Result<AuthKey, Failure> {
        let mut key = AuthKey::in_memory(std::mem::take(&mut self.scratch.value));
        let host = self.plan.and_then(|plan| plan.host);
        // Writing to memory does not fail.
        let _ = key.add(|out| host.map_or(Ok(()), |host| write!(out, "{}", host.pattern())));
        let _ = key.add(|out| write!(out, "{}", auth.forward.backends));
        for text in [
            self.route().map_or("", |route| &*route.rule),
            &asks.host,
            asks.target.text(),
            asks.method.as_deref().unwrap_or_default(),
        ] {
            key.add_text(text);
        }
        let _ = key.add(|out| asks.copied.iter().try_for_each(|name| write!(out, "{},", name.as_str())));
        let _ = key.add(|out| if asks.sets.is_empty() { Ok(()) } else { write!(out, "{:?}", asks.sets) });
        let value = key.add(|out| self.expand_template(Serves::Authentication(auth, &[]), &cache.key, out));
        key.complete();
        match value {
            Ok(()) => Ok(key),
            Err(error) => {
                self.scratch.value = key.into_memory();
                Err(error.into())
            }
        }
    }

    /// What the service says, and how long that may be kept.
    async fn ask_endpoints(&mut self, auth: &'a ExternalAuth, body: &[u8]) -> Result<(AuthAnswer, Duration), Failure> {
        let policy = &*auth.forward.policy;
        self.allowance = Allowance {
            send: policy.send_timeout,
            read: policy.read_timeout,
            max_body: ByteLimit::NONE,
            max_head: policy.max_response_head,
            whole_head: policy.whole_head,
        };
        let shard = &self.facts.shard;
        let forwarding = self.plan.and_then(|plan| plan.forwarding_to(auth)).ok_or(Failure::NoShare)?;
        let service = shard.upstreams.service(self.live, forwarding.backend, &shard.rng).ok_or(Failure::NoService)?;
        let method = match &auth.protocol {
            AuthProtocol::Grpc(asks) => {
                let answer = self.call_endpoints((auth, asks), body, &forwarding, &service).await?;
                return Ok((answer, Duration::ZERO));
            }
            AuthProtocol::Http(_) => self.client.method(),
            AuthProtocol::Subrequest(asks) => {
                let own = asks.method.as_ref().and_then(|method| Method::parse(method.as_bytes()).ok());
                own.unwrap_or_default()
            }
        };
        let way = shard.upstreams.ways.for_own(self.live, &forwarding, &service).map_err(Failure::InvalidTls)?;
        self.try_endpoints(Serves::Authentication(auth, body), &forwarding, &service, &way, None).await?;
        let answer = auth.judge(self.endpoint.status());
        if answer == AuthAnswer::Denied {
            let denied = self.denial(method).await?;
            self.scratch.decision.denied = Some(Box::new(denied));
            return Ok((answer, Duration::ZERO));
        }
        let lasts = self.may_last(auth);
        self.take_from_answer(auth, answer);
        self.discard_response(method).await?;
        Ok((answer, lasts))
    }

    /// The service's answer to a client that may not go on, as far as it is not about the connection to the service.
    async fn denial(&mut self, method: Method) -> Result<Respond, Failure> {
        let (status, response) = (self.endpoint.status(), self.endpoint.response());
        let fields = FieldsView { fields: response.parsed.fields(), bytes: response.bytes };
        // Those that `Connection` lists are gone already.
        let passes = |line: &FieldLine<'_>| !KnownSet::X_ACCEL.contains(line.known);
        let field = |line: FieldLine<'_>| {
            let name = std::str::from_utf8(line.name).ok()?.to_owned();
            Some(CheckField { name, value: line.value.to_vec(), change: Some(CheckChange::Append) })
        };
        let mut fields: Vec<_> = fields.lines().filter(passes).filter_map(field).collect();
        let body = self.keep_response(method).await?;
        if body.is_none() && self.is_late() {
            return Err(Failure::AuthenticationTimeout);
        }
        let body = body.and_then(|body| String::from_utf8(body).ok());
        if body.is_none() {
            // What describes it goes with it.
            let describes = |name: &str| name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
            fields.retain(|field| !describes(&field.name));
        }
        Ok(CheckDenied { status: status.into(), fields, body: body.unwrap_or_default() }.respond())
    }

    /// What a service says that is called.
    async fn call_endpoints(
        &mut self,
        (auth, asks): (&'a ExternalAuth, &GrpcAuth),
        body: &[u8],
        forwarding: &Forwarding<'_>,
        service: &Service,
    ) -> Result<AuthAnswer, Failure> {
        let shard = &self.facts.shard;
        let way = shard.upstreams.ways.for_request(self.live, forwarding, service).map_err(Failure::InvalidTls)?;
        let serves = Serves::Authentication(auth, body);
        let body = grpc::framed(&self.question(auth, body, forwarding, service)?)?;
        let question = Question { authority: &asks.authority, path: ext_authz::PATH, body: &body };
        let reply = self.try_endpoints(serves, forwarding, service, &way, Some(question)).await?;
        let answer = reply.as_ref().and_then(Reply::message).and_then(ext_authz::decode);
        let (Some(answer), Some(head), Some(plan)) = (answer, self.client.head(), &self.plan) else {
            return Ok(AuthAnswer::Failed);
        };
        let decision = &mut self.scratch.decision;
        let verdict = service.with_backend(|backend| {
            let request = UpstreamRequest::new(self.live, head, plan, forwarding, backend, decision);
            answer.judge(|name| request.edits.forwards(name))
        });
        Ok(match verdict {
            CheckVerdict::Allowed(given) => {
                decision.given = Some(Arc::new(given));
                AuthAnswer::Allowed
            }
            CheckVerdict::Denied(respond) => {
                decision.denied = Some(Box::new(respond));
                AuthAnswer::Denied
            }
            CheckVerdict::Failed => AuthAnswer::Failed,
        })
    }

    /// The message for a service that is called.
    fn question(
        &self,
        auth: &ExternalAuth,
        body: &[u8],
        forwarding: &Forwarding<'_>,
        service: &Service,
    ) -> Result<Vec<u8>, Failure> {
        let (Some(head), Some(plan)) = (self.client.head(), &self.plan) else { return Err(Failure::Unwritable) };
        let decision = &self.scratch.decision;
        let (mut fields, view) = (CheckedFields::default(), head.parsed.view(head.bytes));
        service.with_backend(|backend| {
            let mut request = UpstreamRequest::new(self.live, head, plan, forwarding, backend, decision);
            request.edits.auth = Some(auth);
            let mut expand = OfExchange(self, Serves::Authentication(auth, body));
            request.edits.write(&mut fields, None, &mut Vec::new(), &mut expand)
        })?;
        let client = &decision.client;
        let mut target = Vec::new();
        decision.append_target(view.query(), &mut target);
        let checked = Checked {
            source: SocketAddr::new(client.address(), client.port()),
            destination: self.facts.arrival.local,
            time: SystemTime::now().checked_sub(self.begun.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            id: client.request_id(),
            method: view.method,
            target: &target,
            host: client.host(),
            scheme: client.told_scheme(),
            protocol: head.parsed.protocol(),
            size: match head.parsed.framing() {
                Framing::None => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked | Framing::UntilClose => None,
            },
            fields,
            body,
        };
        Ok(checked.encode())
    }

    /// Asks endpoints until one answers, or does not but could be reached. With a `question` that is a call, whose answer is returned;
    /// without one a request, whose answer begins at the endpoint side.
    async fn try_endpoints(
        &mut self,
        serves: Serves<'_>,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        question: Option<Question<'_>>,
    ) -> Result<Option<Reply>, Failure> {
        let mut tries = 0;
        // Set when a kept connection turned out to be closed: its endpoint is asked once more, on a new one.
        let mut again = None;
        // The failure of the last try: the answer if the endpoints are gone when the next one is chosen.
        let mut last = None;
        loop {
            if self.is_late() {
                return Err(Failure::AuthenticationTimeout);
            }
            let fresh = again.is_some();
            let pick = match again.take() {
                Some(pick) => pick,
                None => {
                    tries += 1;
                    let (tried, now) = (&self.scratch.tried, Instant::now());
                    let ask = Ask { session: None, hash_key: b"", tried, ejected: &[], unhealthy: &[], now };
                    let without = || Failure::without_endpoint(self.live, forwarding.backend);
                    service.pick(|_| ask).ok_or_else(|| last.unwrap_or_else(without))?
                }
            };
            let mut attempt = Attempt::new(service, pick, Instant::now());
            let left = self.time_left();
            let asked = match question {
                // Up to the head of the answer.
                None => {
                    let timers = self.facts.shard.timers.clone();
                    // Pinned: what bounds its time would otherwise hold it twice.
                    let asked = pin!(self.attempt(serves, forwarding, service, way, &mut attempt, fresh));
                    in_time(&timers, left, asked).await.map(|()| None)
                }
                // Boxed: it would otherwise take room in every request that waits for authentication.
                Some(question) => {
                    let called = self.call(forwarding, service, way, &mut attempt, question, fresh);
                    Box::pin(called).await.map(Some)
                }
            };
            let failure = match asked {
                Ok(reply) => {
                    let status = if reply.is_some() { 200 } else { self.endpoint.status() };
                    self.end_try(serves, service, &attempt, status, None);
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            self.endpoint.disconnect();
            let lost = service.has_lost(&self.facts.shard.running(), pick.endpoint);
            // The kept connection had been closed, or was about to be. A service may have read this already, and is asked once more.
            if attempt.kept && !fresh && (failure.is_closed() || failure == Failure::Unprocessed) {
                last = Some(failure);
                match lost {
                    true => tries -= 1,
                    false => again = Some(pick),
                }
                continue;
            }
            // Its time ended with that of the request.
            let (status, reason) = match failure {
                Failure::AuthenticationTimeout => (504, Failure::ReadTimeout.reason()),
                failure => (failure.status(), failure.reason()),
            };
            self.end_try(serves, service, &attempt, status, Some(reason));
            // A try at an endpoint that has left says nothing of those that are there, and does not count.
            tries -= u32::from(lost);
            if !failure.is_connect() || tries >= AUTH_TRIES {
                return Err(failure);
            }
            last = Some(failure);
        }
    }

    /// How long the answer may be kept: not at all if it sets a cookie or forbids it (RFC 9111 5.2.2), which comes first in nginx too, and
    /// never longer than the route says.
    fn may_last(&self, auth: &ExternalAuth) -> Duration {
        let Some(cache) = auth.subrequest().and_then(|asks| asks.cache.as_ref()) else { return Duration::ZERO };
        let response = self.endpoint.response();
        let fields = FieldsView { fields: response.parsed.fields(), bytes: response.bytes };
        let mut lasts = cache.lasts(self.endpoint.status());
        if fields.all(KnownField::SetCookie).next().is_some() {
            return Duration::ZERO;
        }
        let directives = fields
            .lines()
            .filter(|line| line.is(b"Cache-Control"))
            .flat_map(|line| line.value.split(|&byte| byte == b','));
        for directive in directives.filter_map(|directive| std::str::from_utf8(directive.trim_ascii()).ok()) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => return Duration::ZERO,
                "max-age" | "s-maxage" => {
                    let seconds = value.trim_matches('"').parse().unwrap_or(0);
                    lasts = lasts.min(Duration::from_secs(seconds));
                }
                _ => {}
            }
        }
        lasts
    }

    /// Keeps what the answer contributes to other messages: its memory is needed for the next response.
    fn take_from_answer(&mut self, auth: &ExternalAuth, answer: AuthAnswer) {
        let response = self.endpoint.response();
        let fields = FieldsView { fields: response.parsed.fields(), bytes: response.bytes };
        let cookies = &mut self.scratch.auth_cookies;
        for cookie in fields.all(KnownField::SetCookie) {
            if !cookies.is_empty() {
                cookies.push(b'\n');
            }
            cookies.extend_from_slice(cookie);
        }
        match answer {
            AuthAnswer::Allowed if auth.copies_all() || !(auth.copied().is_empty() && auth.sets().is_empty()) => {
                let mut given = AuthGiven::default();
                let all = |name: &str| {
                    let lines = fields.lines().filter(move |line| line.is(name.as_bytes()));
                    lines.map(|line| line.value).collect::<Vec<_>>().into_iter()
                };
                for variable in auth.sets() {
                    let mut value = Vec::new();
                    variable.append(self.endpoint.status(), all, &mut value);
                    given.variables.push(value);
                }
                for (place, name) in auth.copied().iter().enumerate() {
                    let lines = fields.lines().filter(|line| line.is(name.as_str().as_bytes()));
                    given.push(auth, place, lines.map(|line| line.value));
                }
                for line in fields.lines().filter(|line| auth.copies_other(line.name)) {
                    let name = std::str::from_utf8(line.name).ok().and_then(|name| ConfiguredName::try_from(name).ok());
                    given.others.extend(name.map(|name| (name, line.value.into())));
                }
                self.scratch.decision.given = Some(Arc::new(given));
            }
            AuthAnswer::Unauthorized if auth.sign_in().is_none() => {
                self.scratch.challenge.extend(challenges(fields));
            }
            _ => {}
        }
    }

    /// Adds the cookies of the authentication service to those that the response sets, if its status admits that.
    pub(super) fn add_auth_cookies(&mut self) {
        let cookies = &self.scratch.auth_cookies;
        if cookies.is_empty() {
            return;
        }
        let auth = self.plan.and_then(|plan| plan.allowed_by().or_else(|| plan.asks()));
        if auth.is_some_and(|auth| auth.sets_cookies_with(self.status)) {
            if !self.scratch.cookie.is_empty() {
                self.scratch.cookie.push(b'\n');
            }
            self.scratch.cookie.extend_from_slice(cookies);
        }
    }
}

/// Awaits something as long as the request may take.
pub(super) async fn in_time<T>(
    timers: &Rc<Timers>,
    left: Option<Duration>,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match left {
        None => future.await,
        Some(left) => timers.timeout(left, future).await.unwrap_or(Err(Failure::AuthenticationTimeout)),
    }
}

/// The fields of a response that say how a client is to authenticate.
pub(super) fn challenges(fields: FieldsView<'_>) -> impl Iterator<Item = (ConfiguredName, Box<str>)> {
    let values = fields.all(KnownField::WwwAuthenticate).filter_map(|value| std::str::from_utf8(value).ok());
    values.filter_map(|value| Some(("WWW-Authenticate".try_into().ok()?, value.into())))
}
