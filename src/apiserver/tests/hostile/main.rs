//! Requests within the size limits that are made to cost as much as they can, against the real server in
//! memory: each must stay within the budget of any request, whatever its answer.
//!
//! CPU is the time of the whole process, memory what the allocator hands out beyond what was there, so
//! that neither depends on what else the machine does. `cargo test --release -p apiserver --test hostile`
//! checks the budgets themselves; unoptimized code gets more time and the same memory. Names as arguments
//! (`-- yaml pods`) choose the inputs whose names contain one.

mod chunks;
mod inputs;
mod lists;
mod measure;
mod patches;
mod pods;
mod stored;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::User;
use apiserver::auth::user::act_as;
use apiserver::config::{Store, Version};
use apiserver::{ApiServer, Config};
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use inputs::Input;
use measure::{Cost, Meter};

/// The budget of any request within the size limits (DESIGN: 250 ms of CPU, 64 MB of memory).
const CPU: Duration = Duration::from_millis(250);
const MEMORY: usize = 64 << 20;
/// How much slower unoptimized code may be.
const SLOWER: u32 = if cfg!(debug_assertions) { 20 } else { 1 };
/// Inputs from this size, and those that work on large objects, are answered beside the runtime's threads, which do no more than to pass them on.
const HEAVY: usize = 32 * 1024;
const PASSED_ON: Duration = Duration::from_millis(20);

fn config() -> Config {
    Config {
        store: Store::Memory,
        store_limit: u64::MAX,
        version: Version {
            git_version: "v1.36.2".into(),
            git_commit: "0000".into(),
            build_date: "2026-01-01T00:00:00Z".into(),
            platform: "linux/amd64".into(),
        },
        advertise_address: "192.0.2.1".parse().expect("an address"),
        secure_port: 6443,
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        cluster_dns: "10.96.0.10".parse().expect("an address"),
        auth: apiserver::auth::Config::default(),
        rest: apiserver::rest::Config::default(),
    }
}

async fn send(server: &Arc<ApiServer>, input: &Input, body: Vec<u8>) -> Response {
    send_body(server, input, Body::from(body)).await
}

async fn send_body(server: &Arc<ApiServer>, input: &Input, body: Body) -> Response {
    let mut request = Request::builder().method(input.method).uri(&input.path);
    request = request.header("accept", input.accept);
    if !input.content_type.is_empty() {
        request = request.header("content-type", input.content_type);
    }
    let mut request = request.body(body).expect("a request");
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    act_as(request.extensions_mut(), Arc::new(admin));
    server.router().oneshot(request).await.expect("the router does not fail")
}

/// What an answer says, shortened.
async fn summary(response: Response) -> (u16, String) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&body[..body.len().min(4_000)]).into_owned();
    let message = text.split_once("\"message\":\"").map_or(text.as_str(), |(_, rest)| rest);
    (code, message.chars().take(100).collect())
}

/// What is wrong with the answer to an input or with its cost.
fn faults(input: &Input, size: usize, code: u16, cost: &Cost) -> Vec<String> {
    let mut faults = Vec::new();
    if !input.codes.contains(&code) {
        faults.push(format!("answered {code}, not {:?}", input.codes));
    }
    if cost.cpu > CPU * SLOWER {
        faults.push(format!("took {:?} of CPU", cost.cpu));
    }
    if cost.memory > MEMORY {
        faults.push(format!("took {} MB", cost.memory >> 20));
    }
    // What is small itself shows by its share where its work is done.
    let is_done_here = input.is_heavy && cost.runtime > cost.cpu / 3 + PASSED_ON / 10;
    if is_done_here || (size >= HEAVY && cost.runtime > PASSED_ON * SLOWER) {
        faults.push(format!("held the runtime's thread for {:?}", cost.runtime));
    }
    faults
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let failed = runtime.block_on(check(&wanted));
    assert!(failed == 0, "{failed} inputs are not within the budget");
}

async fn check(wanted: &[String]) -> usize {
    let server = ApiServer::new(config()).await.expect("a server");
    for input in inputs::seeds() {
        let (code, message) = summary(send(&server, &input, (input.body)()).await).await;
        assert!(input.codes.contains(&code), "{}: {code} {message}", input.name);
    }
    let inputs = inputs::all();
    assert!(inputs.len() >= 60, "only {} inputs", inputs.len());
    let mut failed = 0;
    if wanted.is_empty() || wanted.iter().any(|w| "pieces".contains(w.as_str())) {
        let fault = chunks::fault(&server).await;
        fault.iter().for_each(|fault| eprintln!("    FAULT: {fault}"));
        failed += usize::from(fault.is_some());
    }
    for input in inputs {
        if !wanted.is_empty() && !wanted.iter().any(|w| input.name.contains(w.as_str())) {
            continue;
        }
        let body = (input.body)();
        let size = body.len();
        let meter = Meter::start();
        let (code, message) = summary(send(&server, &input, body).await).await;
        let cost = meter.stop();
        let faults = faults(&input, size, code, &cost);
        let (ms, here, kb, mb) = (cost.cpu.as_millis(), cost.runtime.as_millis(), size >> 10, cost.memory >> 20);
        eprintln!("{:<44} {kb:>5} KB {ms:>6} ms ({here} here) {mb:>4} MB  {code} {message}", input.name);
        for fault in &faults {
            eprintln!("    FAULT: {fault}");
        }
        failed += usize::from(!faults.is_empty());
    }
    failed
}
