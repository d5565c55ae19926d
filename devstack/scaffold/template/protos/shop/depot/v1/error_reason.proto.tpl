syntax = "proto3";

package shop.depot.v1;

// Reasons for which a call to the «depot» service can fail. Those of all services are in shop.system.v1.
enum ErrorReason {
  // Never sent.
  ERROR_REASON_UNSPECIFIED = 0;

  // NOT_FOUND, 404. The «parcel» does not exist. Metadata: `parcelId`.
  ERROR_REASON_PARCEL_NOT_FOUND = 1;
  // [text key]

  // ALREADY_EXISTS, 409. There is «a parcel» with this id. A BadRequest names the field. Metadata: `parcelId`.
  ERROR_REASON_PARCEL_EXISTS = 2;
  // [end]
}
