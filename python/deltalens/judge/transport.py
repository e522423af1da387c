"""What an endpoint may send: so many bytes, as they are, from the place that was asked."""

from __future__ import annotations

from typing import Any

LARGEST_REPLY = 16 << 20


class RefusedReply(Exception):
    """A response that is not read; its message says why and what to do."""


def bounded_client(timeout: float) -> Any:
    """An HTTP client for ``openai`` that follows no redirects and reads 16 MiB of a response.

    It asks for bytes as they are: compressed ones, a megabyte of which may be gigabytes of text,
    are refused.
    """
    from openai import DefaultAsyncHttpxClient

    class BoundedClient(DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            response = await super().send(request, **{**options, "stream": True})
            try:
                content = await _content(response)
            finally:
                await response.aclose()
            headers = response.headers
            return type(response)(
                response.status_code, headers=headers, content=content, request=request
            )

    return BoundedClient(
        timeout=timeout, follow_redirects=False, headers={"Accept-Encoding": "identity"}
    )


async def _content(response: Any) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RefusedReply("a compressed reply, though plain bytes were asked for")
    if response.is_redirect:
        raise RefusedReply("a redirection, which is not followed; give the URL it leads to")
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > LARGEST_REPLY:
            raise RefusedReply("a reply of over 16 MiB, which is none to one request")
    return bytes(content)
