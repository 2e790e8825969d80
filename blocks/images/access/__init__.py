"""Access: one interface to the files in an image, whatever opens it."""

from blocks.images.access.base import Access, Change, Method, Node, Put, Remove

__all__ = ["Access", "Change", "Method", "Node", "Put", "Remove"]
