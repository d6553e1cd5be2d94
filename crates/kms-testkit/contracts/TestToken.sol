// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// A token for tests that can misbehave in the ways of real tokens.
/// Everyone may mint it and change its behavior and decimals: never deploy it on a real chain.
contract TestToken {
    enum TransferBehavior {
        Standard,
        /// transfer returns nothing, like that of USDT.
        NoReturnValue,
        /// transfer moves nothing, and returns false instead of reverting.
        ReturnsFalse,
        /// transfer keeps a tenth of the amount.
        TakesFee,
        /// transfer reverts.
        Reverts,
        /// transfer returns true, moves nothing and logs nothing.
        MovesNothing,
        /// transfer moves nothing, and another contract logs a transfer.
        ForgesLog,
        /// transfer uses all gas that it is given.
        UsesAllGas,
        /// transfer calls the recipient before it moves anything.
        CallsRecipient,
        /// transfer reverts, and paused() is true, like those of USDC.
        Paused,
        /// transfer logs without indexed addresses, as tokens before ERC-20 did.
        OldLog
    }

    string public symbol;
    uint8 public decimals;
    TransferBehavior public behavior;
    mapping(address => uint256) public balanceOf;
    mapping(address => bool) public isBlocked;
    Forger private forger = new Forger();

    event Transfer(address indexed from, address indexed to, uint256 value);

    constructor(string memory symbol_, uint8 decimals_) {
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        if (behavior == TransferBehavior.OldLog) logOld(address(0), to, value);
        else emit Transfer(address(0), to, value);
    }

    function setSymbol(string memory symbol_) external {
        symbol = symbol_;
    }

    function blockUser(address user) external {
        isBlocked[user] = true;
    }

    function paused() external view returns (bool) {
        return behavior == TransferBehavior.Paused;
    }

    function logOld(address from, address to, uint256 value) private {
        bytes32 topic = keccak256("Transfer(address,address,uint256)");
        bytes memory data = abi.encode(from, to, value);
        assembly {
            log1(add(data, 32), mload(data), topic)
        }
    }

    function setBehavior(TransferBehavior behavior_) external {
        behavior = behavior_;
    }

    function setDecimals(uint8 decimals_) external {
        decimals = decimals_;
    }

    /// Logs a transfer that did not happen, in the name of the token itself.
    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        if (behavior == TransferBehavior.ReturnsFalse) return false;
        if (behavior == TransferBehavior.MovesNothing) return true;
        if (behavior == TransferBehavior.Reverts) revert("the token is closed");
        if (behavior == TransferBehavior.Paused) revert("Pausable: paused");
        require(!isBlocked[msg.sender] && !isBlocked[to], "account is blacklisted");
        if (behavior == TransferBehavior.UsesAllGas) while (true) {}
        if (behavior == TransferBehavior.ForgesLog) {
            forger.log(msg.sender, to, value);
            return true;
        }
        if (behavior == TransferBehavior.CallsRecipient) {
            (bool done, ) = to.call("");
            require(done, "the recipient refused");
        }
        uint256 kept = behavior == TransferBehavior.TakesFee ? value / 10 : 0;
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value - kept;
        if (behavior == TransferBehavior.OldLog) logOld(msg.sender, to, value);
        else emit Transfer(msg.sender, to, value - kept);
        if (kept > 0) emit Transfer(msg.sender, address(this), kept);
        if (behavior == TransferBehavior.NoReturnValue) {
            assembly {
                return(0, 0)
            }
        }
        return true;
    }
}

/// Logs a transfer from another address than the token's.
contract Forger {
    event Transfer(address indexed from, address indexed to, uint256 value);

    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }
}

/// The used part of Multicall3, which has the same address on most chains.
contract Multicall {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            (results[i].success, results[i].returnData) = calls[i].target.call(calls[i].callData);
            require(results[i].success || calls[i].allowFailure, "Multicall3: call failed");
        }
    }

    function getEthBalance(address of_) external view returns (uint256) {
        return of_.balance;
    }
}
