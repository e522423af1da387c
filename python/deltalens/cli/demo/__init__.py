"""The demo: both case studies, and what is printed of them."""
