// Calls with sizes beyond int32, of which little is in memory: pages of zeros that are never written, and results whose
// pages are all the same memory except at the end.
#ifndef SPARSEJAX_TESTS_CPP_SIZES_TEST_H_
#define SPARSEJAX_TESTS_CPP_SIZES_TEST_H_

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../../xla_ffi/handlers/handlers.h"
#include "cases.h"
#include "fake_runtime.h"

namespace sparsejax::testing {

// Memory of `bytes` with a guard before and behind it that no access is allowed to: offsets that wrap round end there.
class VirtualMemory {
 public:
  explicit VirtualMemory(int64_t bytes) : bytes_((bytes + kPiece - 1) / kPiece * kPiece) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    base_ = static_cast<char*>(mmap(nullptr, bytes_ + 2 * kGuard, PROT_NONE, kFlags, -1, 0));
    Check(base_);
    data_ = base_ + kGuard;
    Check(mmap(data_, bytes_, PROT_READ | PROT_WRITE, kFlags | MAP_FIXED, -1, 0));
    data_ += bytes_ - bytes / 64 * 64;  // the end is at the guard
  }
  ~VirtualMemory() { munmap(base_, bytes_ + 2 * kGuard); }
  VirtualMemory(const VirtualMemory&) = delete;

  // Makes all pieces but the last two the same memory.
  void ShareAllButTheEnd() {
    const int file = memfd_create("sparsejax", 0);
    if (file < 0 || ftruncate(file, kPiece) != 0) std::abort();
    for (int64_t at = 0; at + 2 * kPiece < bytes_; at += kPiece)
      Check(mmap(base_ + kGuard + at, kPiece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0));
    close(file);
  }

  char* data() { return data_; }

 private:
  static constexpr int64_t kPiece = int64_t{64} << 20, kGuard = int64_t{16} << 30;
  static void Check(void* p) {
    if (p == MAP_FAILED) std::abort();
  }
  int64_t bytes_;
  char *base_, *data_;
};

inline XLA_FFI_Handler* HandlerOf(const std::string& name) {
  for (const Target& target : kTargets)
    if (name == target.name) return target.handler;
  std::abort();
}

inline Array FloatsOf(Dims dims, const std::vector<float>& values) {
  return ArrayOf(XLA_FFI_DataType_F32, std::move(dims), values);
}

inline Array At(VirtualMemory& memory, Dims dims) {
  return {.dtype = XLA_FFI_DataType_F32, .dims = std::move(dims), .bytes = {}, .elsewhere = memory.data()};
}

// Whether the last elements of a large result all have this value.
inline bool EndsWith(VirtualMemory& memory, int64_t elements, float value) {
  constexpr int64_t kLast = 1 << 20;
  const float* end = reinterpret_cast<const float*>(memory.data()) + elements;
  return std::all_of(end - kLast, end, [&](float v) { return v == value; });
}

// Ordinary calls; also results of more than 2**31 elements, which take seconds each; also those that take minutes.
enum class Size { kOrdinary, kLarge, kLargest };

// The first fault, or nothing.
inline std::string SizesFault(Pool& pool, Size size) {
  constexpr int64_t kBeyond = (int64_t{1} << 31) + 64, kHuge = int64_t{1} << 62;
  const auto call = [&](const char* target, Arguments arguments) { return Call(HandlerOf(target), pool, arguments); };

  {  // Sizes whose product wraps round to that of the result.
    const Arguments wrapped{{FloatsOf({0}, {}), FloatsOf({kHuge, 0}, {}), Ints({0, 0, 0, 0, 0}), Ints({})},
                            {FloatsOf({0, 4}, {})},
                            {}};
    const std::string error = call("sparsejax_spmm_v2", wrapped);
    if (error.find("result has shape (0, 4); expected (4611686018427387904, 4)") == std::string::npos)
      return "spmm takes a result of another size: '" + error + "'";
  }
  {  // A huge batch of nothing.
    const Arguments nothing{{FloatsOf({0}, {}), FloatsOf({kHuge, 0}, {}), Ints({0}), Ints({})},
                            {FloatsOf({kHuge, 0}, {})},
                            {}};
    if (const std::string e = call("sparsejax_spmm_v2", nothing); !e.empty()) return e;
    const Arguments both{{FloatsOf({kHuge, 0}, {}), FloatsOf({0}, {}), FloatsOf({kHuge, 0}, {}), Ints({0}), Ints({}),
                          Ints({0}), Ints({}), Ints({})},
                         {FloatsOf({0}, {}), FloatsOf({kHuge, 0}, {})},
                         {}};
    if (const std::string e = call("sparsejax_spmm_backward_v2", both); !e.empty()) return e;
    const Arguments sampled{{FloatsOf({kHuge, 0}, {}), FloatsOf({kHuge, 0}, {}), Ints({0}), Ints({})},
                            {FloatsOf({0}, {})},
                            {}};
    if (const std::string e = call("sparsejax_sddmm_v2", sampled); !e.empty()) return e;
  }
  {  // More features than int32 can index, of which the last one that it can is used.
    VirtualMemory x(kBeyond * 4);
    reinterpret_cast<float*>(x.data())[INT32_MAX] = 3;
    Arguments arguments{{FloatsOf({2}, {1, 2}), At(x, {1, kBeyond}), Ints({0, 1, 2}), Ints({0, INT32_MAX})},
                        {FloatsOf({1, 2}, {7, 7})},
                        {}};
    if (const std::string e = Call(HandlerOf("sparsejax_spmm_v2"), pool, arguments); !e.empty()) return e;
    const float* y = reinterpret_cast<const float*>(arguments.results[0].bytes.data());
    if (y[0] != 0 || y[1] != 6) return "spmm reads another feature than the one beyond 2**31 - 2";
    Arguments gradient{{At(x, {1, kBeyond}), FloatsOf({1, 2}, {1, 5}), Ints({0, 1, 2}), Ints({0, INT32_MAX})},
                       {FloatsOf({2}, {7, 7})},
                       {}};
    if (const std::string e = Call(HandlerOf("sparsejax_sddmm_v2"), pool, gradient); !e.empty()) return e;
    const float* dw = reinterpret_cast<const float*>(gradient.results[0].bytes.data());
    if (dw[0] != 0 || dw[1] != 15) return "sddmm reads another feature than the one beyond 2**31 - 2";
  }
  if (size == Size::kOrdinary) return "";
  {  // A matrix of more than 2**31 elements.
    constexpr int64_t kBatch = 65536 + 64, kRows = 32768;
    VirtualMemory y(kBatch * kRows * 4);
    y.ShareAllButTheEnd();
    std::vector<int32_t> indptr(kRows + 1);
    for (int64_t r = 0; r <= kRows; ++r) indptr[r] = static_cast<int32_t>(r);
    const std::string error =
        call("sparsejax_spmm_v2", {{FloatsOf({kRows}, std::vector<float>(kRows, 2)),
                                    FloatsOf({kBatch, 1}, std::vector<float>(kBatch, 3)), Ints(indptr),
                                    Ints(std::vector<int32_t>(kRows, 0))},
                                   {At(y, {kBatch, kRows})},
                                   {}});
    if (!error.empty()) return error;
    if (!EndsWith(y, kBatch * kRows, 6)) return "spmm does not write the end of more than 2**31 elements";
  }
  {  // Images of more than 2**31 elements.
    constexpr int64_t kBatch = 65536 + 64, kWidth = 32768, kElements = kBatch * kWidth;
    VirtualMemory x(kElements * 4), y(kElements * 4);
    x.ShareAllButTheEnd(), y.ShareAllButTheEnd();
    float* end = reinterpret_cast<float*>(x.data()) + kElements;
    std::fill(end - (2 << 20), end, 3.0f);
    const Array image = At(x, {kBatch, 1, kWidth, 1}), result = At(y, {kBatch, 1, kWidth, 1});
    Arguments conv{{FloatsOf({1}, {2}), image, Ints({0, 1}), Ints({1})}, {result}, {}};
    conv.attributes["geometry"] = Dims{1, 1, 1, 1, 1, 1, 1, 0, 1, 1, kWidth, kWidth, 3, 1, 1, 1, 1};
    if (const std::string e = call("sparsejax_conv_v2", conv); !e.empty()) return e;
    if (!EndsWith(y, kElements, 6)) return "conv does not write the end of more than 2**31 elements";
    Arguments pool_call{{image}, {result}, {}};
    pool_call.attributes["geometry"] = Dims{1, 1, 1, 1, 0, kWidth, kWidth, 1, 1, 0};
    if (const std::string e = call("sparsejax_sum_pool_v2", pool_call); !e.empty()) return e;
    if (!EndsWith(y, kElements, 3)) return "sum_pool does not write the end of more than 2**31 elements";
    const auto norm_fault = [&](int64_t layout, int64_t channels, float bias) -> std::string {
      const Dims shape{kBatch, 1, kWidth / channels, channels};
      const auto vector = [&](float value) { return FloatsOf({channels}, std::vector<float>(channels, value)); };
      Arguments norm{{At(x, shape), vector(0), vector(bias)}, {At(y, shape), vector(7), vector(7)}, {}};
      norm.attributes["activation"] = std::string("none");
      norm.attributes["epsilon"] = 1.0;
      norm.attributes["layouts"] = Dims{layout, layout};
      if (const std::string e = call("sparsejax_batch_norm_v2", norm); !e.empty()) return e;
      return EndsWith(y, kElements, bias) ? "" : "batch_norm does not write the end of more than 2**31 elements";
    };
    if (const std::string e = norm_fault(0, 1, 4); !e.empty()) return e;
    if (const std::string e = norm_fault(1, 16, 5); !e.empty()) return e;
    if (size == Size::kLargest) return norm_fault(1, 1, 7);  // as many rows as elements
  }
  return "";
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_SIZES_TEST_H_
