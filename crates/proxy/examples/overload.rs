//! What a proxy does with twice the load that it can carry: `cargo run --release -p fairway-proxy --example overload [SECONDS]` (60).
//! It runs itself again as a proxy with one worker, and fails if throughput falls more than 10 % below its peak, if the admin port takes
//! more than 100 ms to answer, or if a client above its limit waits for its 503.
//!
//! Hundreds of patterns make a request costlier for the proxy than for the clients and the endpoint, which share the machine with it.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairway_model::{ClientLimits, Filter, ForwardPolicy, NetworkSet, PathMatch, Respond, Settings};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Gate, Origin, Reply};
use support::{HOST, TestProxy, backend, config, filtered, forward, host, route};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Patterns that are tried for each request.
const PATTERNS: usize = 1500;
/// Clients that carry the load: enough that a request always waits, and few enough that a turn of all of them is far below [`PROMPT`].
const CLIENTS: usize = 64;
/// Requests in progress that the limited route allows one client.
const ALLOWED: u32 = 8;
/// The longest that an answer of the admin port, or a 503, may take.
const PROMPT: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(word) if word == "proxy" => serve(arguments.next().ok_or("an origin is missing")?.parse()?),
        seconds => overload(seconds.map_or(Ok(60), |seconds| seconds.parse())?).await,
    }
}

/// The proxy that is overloaded.
fn serve(origin: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut resources = backend("web", &[origin]);
    let to_web = || forward("web", ForwardPolicy::default());
    let mut routes = Vec::with_capacity(PATTERNS + 2);
    for number in 0..PATTERNS {
        let mut route = route("/", to_web());
        route.path = PathMatch::regex(&format!("/[a-z]+/(.*)x{number}/(.*)"))?;
        routes.push(route);
    }
    let limits = ClientLimits {
        scope: "default/app".into(),
        per_second: None,
        per_minute: None,
        in_progress: NonZeroU32::new(ALLOWED),
        exempt: NetworkSet::default(),
        over_rate: Respond::page(503),
        over_requests: Respond::page(503),
    };
    routes.push(route("/", to_web()));
    resources.push(host(HOST, routes));
    resources.push(host(
        "limited.example",
        vec![filtered(route("/", to_web()), vec![Filter::ClientLimits(Box::new(limits))])],
    ));
    resources.push(Settings { keep_alive_requests: u64::MAX, ..Settings::default() }.into());
    let admin = Some(([127, 0, 0, 1], 0).into());
    let proxy = TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(1), admin, ..config() });
    proxy.proxy.readiness().serving();
    println!("{} {}", proxy.http, proxy.proxy.admin_address().ok_or("no admin port")?);
    loop {
        std::thread::park();
    }
}

/// Requests that wait to be sent, and those that were answered.
#[derive(Default)]
struct Load {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Sends requests as often as `due` allows, one after the other. One client in three opens a connection for each.
async fn client(to: SocketAddr, number: usize, due: Arc<Semaphore>, load: Arc<Load>) {
    let mut kept = None;
    while let Ok(turn) = due.acquire().await {
        turn.forget();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match Client::try_connect(to).await {
                Ok(connection) => connection,
                Err(_) => {
                    load.failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            },
        };
        let request = format!("GET /path/of/a/request HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answered = connection.try_send(request).await.is_ok()
            && connection.try_read_response().await.is_ok_and(|response| response.status == 200);
        let counted = if answered { &load.answered } else { &load.failed };
        counted.fetch_add(1, Ordering::Relaxed);
        kept = (answered && !number.is_multiple_of(3)).then_some(connection);
    }
}

/// Makes `rate` requests due each second. What can't be sent is not saved up for longer than a second.
async fn pace(due: &Semaphore, rate: f64) {
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed = 0.0;
    loop {
        tick.tick().await;
        owed += rate / 100.0;
        let whole = owed as usize;
        owed -= whole as f64;
        due.add_permits(whole.min((rate as usize).saturating_sub(due.available_permits())));
    }
}

/// The longest time that the admin port took.
async fn ask_admin(admin: SocketAddr, longest: &AtomicU64) {
    for path in ["/healthz", "/metrics"].into_iter().cycle() {
        let begun = Instant::now();
        let status = Client::connect(admin).await.get("admin", path).await.status;
        let took = if status == 200 { begun.elapsed().as_micros() as u64 } else { u64::MAX };
        longest.fetch_max(took, Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Keeps the limited route busy, and measures how long a request above its limit waits for its 503.
async fn ask_above_limit(to: SocketAddr, longest: &AtomicU64, refused: &AtomicU64) {
    let request = "GET /held HTTP/1.1\r\nHost: limited.example\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..ALLOWED {
        let mut client = Client::connect(to).await;
        client.send(request).await;
        held.push(client);
    }
    sleep(Duration::from_secs(1)).await;
    let mut client = Client::connect(to).await;
    loop {
        let begun = Instant::now();
        client.send(request).await;
        if client.read_response().await.status == 503 {
            refused.fetch_add(1, Ordering::Relaxed);
            longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn overload(seconds: u64) -> Result<(), Box<dyn Error>> {
    // This gate is never opened.
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::new("origin")
        .reply_with(move |request| match request.target.as_str() {
            "/held" => Reply::ok().held_by(&held),
            _ => Reply::ok().body("ok"),
        })
        .start();
    let proxy = Served::start(origin.address())?;
    let (due, load) = (Arc::new(Semaphore::new(0)), Arc::<Load>::default());
    for number in 0..CLIENTS {
        drop(tokio::spawn(client(proxy.http, number, due.clone(), load.clone())));
    }
    let per_second = async |from: u64, over: Duration| {
        sleep(over).await;
        (load.answered.load(Ordering::Relaxed) - from) as f64 / over.as_secs_f64()
    };
    let answered = || load.answered.load(Ordering::Relaxed);
    // The peak is the rate that it carries when there is always a request to serve, but no crowd.
    let mut peak: f64 = 0.0;
    for rate in (1..).map(|step| 500.0 * f64::from(step)) {
        let (_, carried) = tokio::join!(
            async { drop(tokio::time::timeout(Duration::from_secs(2), pace(&due, rate)).await) },
            per_second(answered(), Duration::from_secs(2))
        );
        println!("{rate:>8.0} offered {carried:>8.0} answered a second");
        peak = peak.max(carried);
        if carried < 0.85 * rate {
            break;
        }
    }
    let (longest, slowest, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut least = f64::MAX;
    let measured = async {
        for _ in 0..seconds.div_ceil(5) {
            let carried = per_second(answered(), Duration::from_secs(5)).await;
            println!("{:>8.0} offered {carried:>8.0} answered a second", 2.0 * peak);
            least = least.min(carried);
        }
    };
    tokio::select! {
        () = measured => {}
        () = pace(&due, 2.0 * peak) => {}
        () = ask_admin(proxy.admin, &longest) => {}
        () = ask_above_limit(proxy.http, &slowest, &refused) => {}
    }
    let millis = |time: &AtomicU64| time.load(Ordering::Relaxed) as f64 / 1000.0;
    println!("least {least:.0} of {peak:.0} a second: {:.3}", least / peak);
    println!("admin port at most {:.1} ms", millis(&longest));
    println!(
        "{} requests above the limit refused, in at most {:.1} ms",
        refused.load(Ordering::Relaxed),
        millis(&slowest)
    );
    println!("{} requests failed", load.failed.load(Ordering::Relaxed));
    let good = least >= 0.9 * peak
        && millis(&longest) <= PROMPT.as_secs_f64() * 1000.0
        && refused.load(Ordering::Relaxed) > 0
        && load.failed.load(Ordering::Relaxed) == 0;
    if good { Ok(()) } else { Err("the proxy does not hold up".into()) }
}

/// A running proxy.
struct Served {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Served {
    fn start(origin: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(["proxy", &origin.to_string()]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (http, admin) = line.trim().split_once(' ').ok_or("no addresses")?;
        Ok(Self { http: http.parse()?, admin: admin.parse()?, child })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
