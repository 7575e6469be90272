"""These tests write and read real graphs."""

import pytest

pytest.importorskip("nir", reason="the 'nir' extra is not installed")
