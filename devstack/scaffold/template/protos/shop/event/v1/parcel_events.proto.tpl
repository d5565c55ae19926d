syntax = "proto3";

package shop.event.v1;

// «A parcel» was created.
message ParcelCreated {
  // The «parcel»; the event's subject.
  string parcel_id = 1;
}

// «A parcel» changed. Events hold no content: call GetParcel for the new values.
message ParcelUpdated {
  // The «parcel»; the event's subject.
  string parcel_id = 1;

  // The names of the fields that changed, as in JSON.
  repeated string changed_fields = 2;
}
