"""Ids and keys of products and of their images: derived, so that each step may run twice."""

from uuid import UUID, uuid5

PRODUCTS = "products/"  # how all keys begin


def image_id(product_id: UUID, input_url: str) -> UUID:
    """Id of the row of one pair of input and output: a URL counts once in a product."""
    return uuid5(product_id, input_url)


def folder(product_id: UUID) -> str:
    """How all keys of the product begin."""
    return f"{PRODUCTS}{product_id}/"


def image_folder(product_id: UUID, input_url: str) -> str:
    """How the keys of all begin that is made of one input."""
    return f"{folder(product_id)}{image_id(product_id, input_url)}/"


def product_of(key: str) -> UUID | None:
    """The product whose key it is; None: nobody's."""
    name, slash, _ = key.removeprefix(PRODUCTS).partition("/")
    try:
        product_id = UUID(name)
    except ValueError:
        return None
    return product_id if slash and key.startswith(folder(product_id)) else None
