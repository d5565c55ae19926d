# What the guards of the whole tree are told about the «depot» service (tests/support/guards.py).

[access]
"DepotService.CreateParcel" = "admin service"
"DepotService.GetParcel" = "user support admin service"
"DepotService.ListParcels" = "user support admin service"
"DepotService.UpdateParcel" = "admin service"

[dates]
"service.py DepotService._apply" = "of a change"
"service.py DepotService.create_parcel" = "of «a parcel»"

[indexes]
parcels = []
# [each read]
known_cargos = []
# [end]

[pages]
ListParcels = "200 of the largest entries have 100 kB"
