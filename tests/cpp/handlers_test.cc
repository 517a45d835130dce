// Calls every handler with every instruction set, without Python and XLA: on a pool of one thread, then from several
// callers at once on a pool of four. All must give the same bits, whatever the results' memory held before.
//
// tests/sanitize.sh builds and runs it. A target without a case is a failure. With the argument `large`, only calls
// with results of more than 2**31 elements are made; with `largest`, also those of them that take minutes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../../xla_ffi/handlers/handlers.h"
#include "../../xla_ffi/runtime/isa.h"
#include "cases.h"
#include "fake_runtime.h"
#include "plan_cache_test.h"
#include "sizes_test.h"
#include "small_batch_test.h"

namespace sparsejax::testing {
namespace {

constexpr int kThreads = 4, kCallers = 3;

[[noreturn]] void Die(const std::string& what, const std::string& why) {
  std::fprintf(stderr, "handlers_test: %s: %s\n", what.c_str(), why.c_str());
  std::exit(1);
}

// The results of a call. Operands and results are copies, which are deleted when this function returns.
std::vector<std::vector<char>> Results(const Target& target, Pool& pool, Arguments call, char before) {
  for (Array& a : call.results) a.bytes.assign(a.bytes.size(), before);
  const std::string error = Call(target.handler, pool, call);
  if (!error.empty()) Die(target.name, error);
  std::vector<std::vector<char>> bytes;
  for (Array& a : call.results) bytes.push_back(std::move(a.bytes));
  return bytes;
}

void TestSameBits(const Target& target, const Arguments& call, Pool& one, Pool& many) {
  const auto expected = Results(target, one, call, 0x11);
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i)
    callers.emplace_back([&] {
      if (Results(target, many, call, 0x77) != expected) Die(target.name, "other bits on several threads");
    });
  for (std::thread& caller : callers) caller.join();
}

void TestRefusal(const Target& target, Arguments call, Pool& pool) {
  call.operands[0].dtype = XLA_FFI_DataType_S8;
  const std::string error = Call(target.handler, pool, call);
  if (error.find("has dtype int8; expected") == std::string::npos) Die(target.name, "took int8: '" + error + "'");
}

int Main(Size size) {
  Pool one(1), many(kThreads);
  SelectTable();
  if (const std::string fault = PlanCacheFault(); !fault.empty()) Die("plan cache", fault);
  if (const std::string fault = SizesFault(many, size); !fault.empty()) Die("sizes", fault);
  if (size != Size::kOrdinary) return 0;
  const std::vector<std::string> isas = SupportedIsas();
  for (const Target& target : kTargets)
    for (const XLA_FFI_DataType dtype : {XLA_FFI_DataType_F32, XLA_FFI_DataType_F64, XLA_FFI_DataType_BF16}) {
      const std::vector<Arguments> cases = CasesOf(target.name, dtype);
      if (cases.empty()) Die(target.name, "has no case; add it to tests/cpp/cases.h");
      for (const std::string& isa : isas) {
        setenv("SPARSEJAX_ISA", isa.c_str(), /*overwrite=*/1);
        SelectTable();
        for (const Arguments& call : cases) TestSameBits(target, call, one, many);
        TestRefusal(target, cases[0], many);
      }
    }
  for (const std::string& isa : isas) {
    setenv("SPARSEJAX_ISA", isa.c_str(), /*overwrite=*/1);
    SelectTable();
    if (const std::string fault = DigestFault(); !fault.empty()) Die("digest, " + isa, fault);
    for (const std::string& fault :
         {SmallBatchFaults<float>(), SmallBatchFaults<double>(), SmallBatchFaults<bfloat16>()})
      if (!fault.empty()) Die("small batch, " + isa, fault);
    std::printf("%s: %zu targets, the same bits on %d threads\n", isa.c_str(), std::size(kTargets), kThreads);
  }
  return 0;
}

}  // namespace
}  // namespace sparsejax::testing

int main(int argc, char** argv) {
  using sparsejax::testing::Size;
  const std::string size = argc > 1 ? argv[1] : "";
  return sparsejax::testing::Main(size == "largest" ? Size::kLargest
                                  : size == "large" ? Size::kLarge
                                                    : Size::kOrdinary);
}
