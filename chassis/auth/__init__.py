"""Who calls: access rules of the contract, access tokens, keys, certificates."""
