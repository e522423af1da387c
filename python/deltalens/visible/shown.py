"""Results that show themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from deltalens.visible.view import View


class Shown(ABC):
    """As a cell's last value a result is its view: HTML, and text where there is none."""

    @abstractmethod
    def _view(self) -> View: ...

    def _repr_html_(self) -> str:
        return self._view().html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        view = self._view()
        return {"text/html": view.html(), "text/plain": repr(view)}
