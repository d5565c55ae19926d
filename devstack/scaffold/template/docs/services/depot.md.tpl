# The «depot» service

Keeps «parcels». `depot_svc/service.toml` declares it; its contract is `protos/shop/depot/v1/`.

| over REST | who may |
|---|---|
| `POST /api/v1/parcels`, `PATCH /api/v1/parcels/{id}` | admins, services |
| `GET /api/v1/parcels/{id}`, `GET /api/v1/parcels` | every user, services |

| reason | code, status | what to do |
|---|---|---|
| PARCEL_NOT_FOUND | NOT_FOUND, 404 | list the «parcels», and use the id of one |
<!-- [text key] -->
| PARCEL_EXISTS | ALREADY_EXISTS, 409 | choose another id |
<!-- [end] -->

Its events are `parcel.created` and `parcel.updated` ([events.md](../events.md)).
