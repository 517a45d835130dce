// Names of dtypes in error messages.
#ifndef SPARSEJAX_HANDLERS_DTYPE_NAME_H_
#define SPARSEJAX_HANDLERS_DTYPE_NAME_H_

#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace sparsejax {

// The name that JAX uses for the dtype; "number N" for one that is newer than the headers of this build.
inline std::string DtypeName(xla::ffi::DataType type) {
  using D = xla::ffi::DataType;
  constexpr std::pair<D, const char*> kNames[] = {
      {D::PRED, "bool"},
      {D::S1, "int1"},
      {D::S2, "int2"},
      {D::S4, "int4"},
      {D::S8, "int8"},
      {D::S16, "int16"},
      {D::S32, "int32"},
      {D::S64, "int64"},
      {D::U1, "uint1"},
      {D::U2, "uint2"},
      {D::U4, "uint4"},
      {D::U8, "uint8"},
      {D::U16, "uint16"},
      {D::U32, "uint32"},
      {D::U64, "uint64"},
      {D::F16, "float16"},
      {D::F32, "float32"},
      {D::F64, "float64"},
      {D::BF16, "bfloat16"},
      {D::C64, "complex64"},
      {D::C128, "complex128"},
      {D::TOKEN, "token"},
      {D::F8E5M2, "float8_e5m2"},
      {D::F8E3M4, "float8_e3m4"},
      {D::F8E4M3, "float8_e4m3"},
      {D::F8E4M3FN, "float8_e4m3fn"},
      {D::F8E4M3B11FNUZ, "float8_e4m3b11fnuz"},
      {D::F8E5M2FNUZ, "float8_e5m2fnuz"},
      {D::F8E4M3FNUZ, "float8_e4m3fnuz"},
      {D::F4E2M1FN, "float4_e2m1fn"},
      {D::F8E8M0FNU, "float8_e8m0fnu"},
  };
  for (const auto& [named, name] : kNames)
    if (named == type) return name;
  return "number " + std::to_string(static_cast<int>(type));
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_DTYPE_NAME_H_
