//! What is answered: the page, what it shows, the stream of news, and, where that is allowed, what changes something.

use super::guard::Guard;
use super::memory::{Memory, News, Place};
use super::page::Page;
use super::shown::Shown;
use crate::cli::conntrack::RouterArgs;
use crate::cli::rules::check_text;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use stateway_runtime::control::protocol::{EntryMatch, EntryOrder};
use stateway_runtime::control::{Command, Reply};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// The longest rules that a page may send.
const MOST_RULES: usize = 4 << 20;
/// A browser that has gone is noticed by what cannot be sent to it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Its own files and nothing else; no script in the page itself. `wasm-unsafe-eval` lets WebAssembly be compiled, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What the answers are made of.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) guard: Guard,
    pub(super) page: Page,
    pub(super) shown: Shown,
    pub(super) memory: Arc<Memory>,
    pub(super) router: Arc<RouterArgs>,
}

type Shared = State<Arc<Site>>;

pub(super) fn routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/{token}", get(with_slash))
        .route("/{token}/", get(index))
        .route("/{token}/{*path}", get(file))
        .route("/{token}/live/shown", get(shown))
        .route("/{token}/live/news", get(news))
        .route("/{token}/live/connection/{id}", get(connection))
        .route("/{token}/live/check", post(check_rules))
        .route("/{token}/live/rules", post(replace_rules))
        .layer(DefaultBodyLimit::max(MOST_RULES))
        .layer(from_fn_with_state(Arc::clone(&site), guarded))
        .with_state(site)
}

/// Whatever is asked for, the guard is asked first; and every answer says what a browser may do with it.
async fn guarded(State(site): Shared, request: Request, next: Next) -> Response {
    let mut response = match site.guard.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => (refusal.status(), refusal.message()).into_response(),
    };
    let headers =
        HEADERS.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

async fn with_slash(Path(token): Path<String>) -> Redirect {
    Redirect::permanent(&format!("/{token}/"))
}

async fn index(State(site): Shared) -> Response {
    found(&site, "")
}

async fn file(State(site): Shared, Path((_, path)): Path<(String, String)>) -> Response {
    found(&site, &path)
}

fn found(site: &Site, path: &str) -> Response {
    match site.page.file(path) {
        Some((kind, bytes)) => ([(header::CONTENT_TYPE, kind)], bytes.to_vec()).into_response(),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

async fn shown(State(site): Shared) -> Response {
    Json(&site.shown).into_response()
}

/// Everything that is kept, or what came behind the news that a browser has read last; then what comes.
async fn news(State(site): Shared, headers: HeaderMap) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|number| number.to_str().ok()?.parse().ok());
    let place = last.map_or_else(Place::default, Place::behind);
    let begin = (Arc::clone(&site.memory), site.memory.follow(), place, Vec::<Arc<News>>::new().into_iter());
    let stream = stream::unfold(begin, async |(memory, mut changed, mut place, mut waiting)| {
        loop {
            if let Some(news) = waiting.next() {
                return Some((Ok(event(&news)), (memory, changed, place, waiting)));
            }
            // It ends with the program.
            changed.changed().await.ok()?;
            let unread = memory.read(&mut place);
            waiting = unread.news.into_iter();
            if unread.lost > 0 {
                let lost = Event::default().event("lost").data(format!("{{\"count\":{}}}", unread.lost));
                return Some((Ok(lost), (memory, changed, place, waiting)));
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn event(news: &News) -> Event {
    let event = Event::default().event(news.kind).data(&news.text);
    if news.number > 0 { event.id(news.number.to_string()) } else { event }
}

/// One connection in full.
async fn connection(State(site): Shared, Path((_, id)): Path<(String, u32)>) -> Response {
    let command = Command::ConntrackSummary {
        entries: 0,
        order: EntryOrder::Newest,
        matching: EntryMatch::default(),
        show: Some(id),
    };
    match ask(&site, command).await {
        Ok(replies) => match replies.into_iter().next() {
            Some(Reply::Summary(summary)) => Json(summary.shown).into_response(),
            _ => StatusCode::BAD_GATEWAY.into_response(),
        },
        Err(why) => (StatusCode::BAD_GATEWAY, why).into_response(),
    }
}

/// Rules in the place of those that are in force; a family that is not named keeps its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherRules {
    v4: Option<String>,
    v6: Option<String>,
}

/// What is wrong with rules that are being written, and what `stateway rules check` finds: `{"v4": […], "v6": […]}`.
async fn check_rules(State(site): Shared, Json(rules): Json<OtherRules>) -> Response {
    let ports = match ask(&site, Command::Interfaces).await.map(|replies| replies.into_iter().next()) {
        Ok(Some(Reply::Interfaces { interfaces })) => interfaces.into_iter().map(|port| port.name).collect(),
        _ => Vec::<String>::new(),
    };
    let OtherRules { v4, v6 } = rules;
    let checked = tokio::task::spawn_blocking(move || {
        let of = |text: Option<String>, is_ipv6| match text {
            Some(text) => check_text(text, is_ipv6, ports.clone()).map_err(|failure| failure.text()),
            None => Ok(Vec::new()),
        };
        Ok::<_, String>(serde_json::json!({ "v4": of(v4, false)?, "v6": of(v6, true)? }))
    });
    match checked.await {
        Ok(Ok(found)) => Json(found).into_response(),
        Ok(Err(why)) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// All or nothing; why not is said as text.
async fn replace_rules(State(site): Shared, Json(rules): Json<OtherRules>) -> Response {
    if !site.shown.may_write {
        return (StatusCode::FORBIDDEN, "begin it with `--write`, and rules may be changed\n")
            .into_response();
    }
    let command = Command::RulesReplace { rules: rules.v4, rules6: rules.v6, may_open: false };
    match ask(&site, command).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
    }
}

/// Asks the router once, beside what is told of it.
async fn ask(site: &Site, command: Command) -> Result<Vec<Reply>, String> {
    let router = Arc::clone(&site.router);
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = router.connect().map_err(|failure| failure.text())?;
        client.call(&command).map_err(|error| format!("{error:#}"))
    });
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}
