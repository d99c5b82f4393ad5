//! The messages of `spark/connect/*.proto` (Spark 4) that this client sends and reads, with the fields that it uses. Numbers are
//! those of the protocol. Fields of other numbers are skipped.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct UserContext {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(string, tag = "2")]
    pub user_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlanMessage {
    #[prost(oneof = "PlanKind", tags = "1, 2")]
    pub kind: Option<PlanKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum PlanKind {
    #[prost(message, tag = "1")]
    Root(Relation),
    #[prost(message, tag = "2")]
    Command(Command),
}

#[derive(Clone, PartialEq, Message)]
pub struct RelationCommon {
    #[prost(int64, optional, tag = "2")]
    pub plan_id: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Relation {
    #[prost(message, optional, tag = "1")]
    pub common: Option<RelationCommon>,
    #[prost(oneof = "RelationKind", tags = "2, 10, 29")]
    pub kind: Option<RelationKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum RelationKind {
    #[prost(message, tag = "2")]
    Read(Read),
    #[prost(message, tag = "10")]
    Sql(Sql),
    #[prost(message, boxed, tag = "29")]
    CollectMetrics(Box<CollectMetrics>),
}

#[derive(Clone, PartialEq, Message)]
pub struct Sql {
    #[prost(string, tag = "1")]
    pub query: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Read {
    #[prost(message, optional, tag = "2")]
    pub data_source: Option<DataSource>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DataSource {
    #[prost(string, optional, tag = "1")]
    pub format: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub schema: Option<String>,
    #[prost(map = "string, string", tag = "3")]
    pub options: HashMap<String, String>,
    #[prost(string, repeated, tag = "4")]
    pub paths: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CollectMetrics {
    #[prost(message, optional, boxed, tag = "1")]
    pub input: Option<Box<Relation>>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "3")]
    pub metrics: Vec<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Expression {
    #[prost(oneof = "ExpressionKind", tags = "4")]
    pub kind: Option<ExpressionKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ExpressionKind {
    #[prost(message, tag = "4")]
    Text(ExpressionText),
}

#[derive(Clone, PartialEq, Message)]
pub struct ExpressionText {
    #[prost(string, tag = "1")]
    pub expression: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Literal {
    #[prost(oneof = "LiteralKind", tags = "6, 7")]
    pub kind: Option<LiteralKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum LiteralKind {
    #[prost(int32, tag = "6")]
    Integer(i32),
    #[prost(int64, tag = "7")]
    Long(i64),
}

#[derive(Clone, PartialEq, Message)]
pub struct Command {
    #[prost(oneof = "CommandKind", tags = "2, 3, 5")]
    pub kind: Option<CommandKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum CommandKind {
    #[prost(message, tag = "2")]
    Write(WriteOperation),
    #[prost(message, tag = "3")]
    CreateView(CreateView),
    #[prost(message, tag = "5")]
    Sql(SqlCommand),
}

#[derive(Clone, PartialEq, Message)]
pub struct SqlCommand {
    #[prost(message, optional, tag = "6")]
    pub input: Option<Relation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateView {
    #[prost(message, optional, tag = "1")]
    pub input: Option<Relation>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub is_global: bool,
    #[prost(bool, tag = "4")]
    pub replace: bool,
}

/// The save mode that fails if the folder exists.
pub const ERROR_IF_EXISTS: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub struct WriteOperation {
    #[prost(message, optional, tag = "1")]
    pub input: Option<Relation>,
    #[prost(string, optional, tag = "2")]
    pub source: Option<String>,
    /// One of the protocol's save types.
    #[prost(string, optional, tag = "3")]
    pub path: Option<String>,
    #[prost(int32, tag = "5")]
    pub mode: i32,
    #[prost(string, repeated, tag = "7")]
    pub partitioning_columns: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    pub options: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExecutePlanRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(message, optional, tag = "3")]
    pub plan: Option<PlanMessage>,
    #[prost(string, optional, tag = "4")]
    pub client_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub request_options: Vec<RequestOption>,
    #[prost(string, optional, tag = "6")]
    pub operation_id: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub observed_server: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RequestOption {
    #[prost(message, optional, tag = "1")]
    pub reattach: Option<ReattachOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReattachOptions {
    #[prost(bool, tag = "1")]
    pub reattachable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExecutePlanResponse {
    #[prost(string, tag = "15")]
    pub server: String,
    #[prost(string, tag = "13")]
    pub response_id: String,
    #[prost(message, repeated, tag = "6")]
    pub observed_metrics: Vec<ObservedMetrics>,
    #[prost(oneof = "ResponseKind", tags = "2, 14, 18")]
    pub kind: Option<ResponseKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ResponseKind {
    #[prost(message, tag = "2")]
    ArrowBatch(ArrowBatch),
    #[prost(message, tag = "14")]
    Complete(Empty),
    #[prost(message, tag = "18")]
    Progress(ExecutionProgress),
}

#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct ArrowBatch {
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct ObservedMetrics {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<Literal>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExecutionProgress {
    #[prost(message, repeated, tag = "1")]
    pub stages: Vec<StageInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StageInfo {
    #[prost(int64, tag = "2")]
    pub tasks: i64,
    #[prost(int64, tag = "3")]
    pub completed_tasks: i64,
    #[prost(int64, tag = "4")]
    pub input_bytes_read: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReattachExecuteRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(string, tag = "3")]
    pub operation_id: String,
    #[prost(string, optional, tag = "4")]
    pub client_type: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub last_response_id: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub observed_server: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReleaseExecuteRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(string, tag = "3")]
    pub operation_id: String,
    #[prost(string, optional, tag = "4")]
    pub client_type: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub release_all: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReleaseSessionRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(string, optional, tag = "3")]
    pub client_type: Option<String>,
}

/// Interrupts all operations of a session.
pub const INTERRUPT_ALL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct InterruptRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(string, optional, tag = "3")]
    pub client_type: Option<String>,
    #[prost(int32, tag = "4")]
    pub interrupt_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(message, optional, tag = "3")]
    pub operation: Option<ConfigOperation>,
    #[prost(string, optional, tag = "4")]
    pub client_type: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub observed_server: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigOperation {
    #[prost(message, optional, tag = "1")]
    pub set: Option<ConfigSet>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigSet {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConfigResponse {
    #[prost(string, tag = "4")]
    pub server: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnalyzePlanRequest {
    #[prost(string, tag = "1")]
    pub session_id: String,
    #[prost(message, optional, tag = "2")]
    pub user_context: Option<UserContext>,
    #[prost(string, optional, tag = "3")]
    pub client_type: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub spark_version: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnalyzePlanResponse {
    #[prost(string, tag = "15")]
    pub server: String,
    #[prost(message, optional, tag = "8")]
    pub spark_version: Option<SparkVersion>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SparkVersion {
    #[prost(string, tag = "1")]
    pub version: String,
}
