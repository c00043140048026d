"""What the loop needs of each store, as small Protocols; adapters meet them, `bootstrap` wires them."""
