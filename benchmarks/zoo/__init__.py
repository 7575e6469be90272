"""How networks get into the zoo; ``python -m benchmarks.zoo`` trains, packs and ships them."""
