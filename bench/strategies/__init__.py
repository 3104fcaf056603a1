"""The strategies compared, in virtual time: the product's own router before modelled engines."""
