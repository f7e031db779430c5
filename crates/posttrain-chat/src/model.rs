//! The `ChatModel` trait: anything that continues a conversation.

use futures_core::future::BoxFuture;

use crate::{ChatError, ChatRequest, ChatResponse};

/// Continues conversations: a server, a local model, a test's stand-in. Usable as
/// `Arc<dyn ChatModel>`.
///
/// ```
/// use posttrain_chat::{ChatModel, ChatRequest, ChatResponse, Message, from_fn};
///
/// let parrot = from_fn("parrot", async |request: ChatRequest| {
///     Ok(ChatResponse::from_text(request.messages[0].text()))
/// });
/// let request = ChatRequest::new([Message::user("Hello.")]);
/// let response = futures::executor::block_on(parrot.complete(&request))?;
/// assert_eq!((parrot.name(), response.text.as_str()), ("parrot", "Hello."));
/// # Ok::<(), posttrain_chat::ChatError>(())
/// ```
pub trait ChatModel: Send + Sync {
    /// The model's name, as its server has it.
    fn name(&self) -> &str;

    /// Everything beside the request that an answer depends on (the server, its settings) and no
    /// secret, in any form that stays the same from run to run. A cache keeps answers of different
    /// identities apart.
    fn identity(&self) -> String;

    /// Continues a conversation.
    ///
    /// # Errors
    /// Whatever kept the model from an answer. A refusal is an answer.
    fn complete<'a>(
        &'a self,
        request: &'a ChatRequest,
    ) -> BoxFuture<'a, Result<ChatResponse, ChatError>>;
}

impl<M: ChatModel + ?Sized> ChatModel for std::sync::Arc<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn complete<'a>(
        &'a self,
        request: &'a ChatRequest,
    ) -> BoxFuture<'a, Result<ChatResponse, ChatError>> {
        (**self).complete(request)
    }
}

/// A model made of a function; [`from_fn`] makes it.
///
/// ```
/// use posttrain_chat::{ChatModel, ChatRequest, ChatResponse, from_fn};
///
/// let model = from_fn("four", async |_: ChatRequest| Ok(ChatResponse::from_text("4")));
/// assert_eq!(model.identity(), "four");
/// ```
pub struct ChatModelFn<F> {
    name: String,
    function: F,
}

impl<F, Answer> ChatModel for ChatModelFn<F>
where
    F: Fn(ChatRequest) -> Answer + Send + Sync,
    Answer: Future<Output = Result<ChatResponse, ChatError>> + Send + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        self.name.clone()
    }

    fn complete<'a>(
        &'a self,
        request: &'a ChatRequest,
    ) -> BoxFuture<'a, Result<ChatResponse, ChatError>> {
        Box::pin(async move {
            request.validate()?;
            (self.function)(request.clone()).await
        })
    }
}

/// An async function as a model, for tests and experiments.
///
/// ```
/// use posttrain_chat::{ChatError, ChatModel, ChatRequest, Message, from_fn};
///
/// let broken = from_fn("broken", async |_: ChatRequest| {
///     Err(ChatError::Failed { model: "broken".into(), cause: "no_luck", message: "never works".into() })
/// });
/// let request = ChatRequest::new([Message::user("Hello.")]);
/// assert_eq!(futures::executor::block_on(broken.complete(&request)).unwrap_err().cause(), "no_luck");
/// ```
pub fn from_fn<F, Answer>(name: impl Into<String>, function: F) -> ChatModelFn<F>
where
    F: Fn(ChatRequest) -> Answer + Send + Sync,
    Answer: Future<Output = Result<ChatResponse, ChatError>> + Send + 'static,
{
    ChatModelFn { name: name.into(), function }
}
